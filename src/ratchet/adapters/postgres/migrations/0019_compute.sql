-- A worker is asked to save and leave: its run's budget is used up.
ALTER TABLE attempts ADD COLUMN stop_at timestamptz;
