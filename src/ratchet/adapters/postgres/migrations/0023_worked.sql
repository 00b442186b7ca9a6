-- When an attempt reported its first step: what a start takes is known before its end.
ALTER TABLE attempts ADD COLUMN worked_at timestamptz;
