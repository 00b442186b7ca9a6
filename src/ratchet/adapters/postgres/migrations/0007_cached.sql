-- Answers from the cache are on the record, too: no engine gave them.
ALTER TABLE access_records DROP CONSTRAINT access_records_routed_check;
ALTER TABLE access_records ADD CONSTRAINT access_records_routed_check
    CHECK (routed IN ('arms', 'chosen', 'pinned', 'fallback', 'cached'));
