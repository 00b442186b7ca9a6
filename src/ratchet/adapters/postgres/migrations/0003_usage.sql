-- Tokens of each answer, as the answer told them; NULL when it told none.
ALTER TABLE access_records
    ADD COLUMN prompt_tokens     integer CHECK (prompt_tokens >= 0),
    ADD COLUMN completion_tokens integer CHECK (completion_tokens >= 0);
CREATE INDEX access_records_by_age ON access_records (project, received_at);
