-- More ways for an attempt to end, each with its own consequence.
ALTER TABLE attempts
    DROP CONSTRAINT attempts_state_check,
    ADD CONSTRAINT attempts_state_check CHECK (state IN ('wanted', 'running', 'succeeded', 'failed',
        'lost', 'preempted', 'out_of_memory', 'timed_out', 'cancelled'));
