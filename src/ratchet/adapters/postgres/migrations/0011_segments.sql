-- What a request was known to be before it had an arm: its tenant, language, length, tools.
ALTER TABLE access_records ADD COLUMN known jsonb NOT NULL DEFAULT '{}';
ALTER TABLE units ADD COLUMN known jsonb NOT NULL DEFAULT '{}';
