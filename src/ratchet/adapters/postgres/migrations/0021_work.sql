-- Whoever does the work that is here to be done is told of it at once, and need not look.
CREATE FUNCTION tell_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('work', '');
    RETURN NULL;
END $$;
CREATE TRIGGER tell_work AFTER INSERT OR UPDATE OF state ON runs
    FOR EACH STATEMENT EXECUTE FUNCTION tell_work();
CREATE TRIGGER tell_work AFTER INSERT OR UPDATE OF state ON attempts
    FOR EACH STATEMENT EXECUTE FUNCTION tell_work();
CREATE TRIGGER tell_work AFTER INSERT OR UPDATE OF wanted ON engines
    FOR EACH STATEMENT EXECUTE FUNCTION tell_work();
