-- What the team's tracker has been told, so that what it missed is told later.
ALTER TABLE versions
    ADD COLUMN mirrored_at timestamptz,
    ADD COLUMN mirror      text NOT NULL DEFAULT '';   -- where it is shown there
UPDATE versions SET mirrored_at = created_at;
CREATE INDEX versions_to_mirror ON versions (created_at) WHERE mirrored_at IS NULL;
