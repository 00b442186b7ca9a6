-- Whoever does the work that is here to be done is told of it at once, and need not look.
-- By row, and only of changes: a look that finds nothing to start must not wake itself.
CREATE FUNCTION tell_work() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('work', '');
    RETURN NULL;
END $$;
CREATE TRIGGER tell_new AFTER INSERT ON runs FOR EACH ROW EXECUTE FUNCTION tell_work();
CREATE TRIGGER tell_new AFTER INSERT ON attempts FOR EACH ROW EXECUTE FUNCTION tell_work();
CREATE TRIGGER tell_new AFTER INSERT ON engines FOR EACH ROW EXECUTE FUNCTION tell_work();
CREATE TRIGGER tell_changed AFTER UPDATE OF state ON runs FOR EACH ROW
    WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION tell_work();
CREATE TRIGGER tell_changed AFTER UPDATE OF state ON attempts FOR EACH ROW
    WHEN (OLD.state <> NEW.state) EXECUTE FUNCTION tell_work();
CREATE TRIGGER tell_changed AFTER UPDATE OF wanted ON engines FOR EACH ROW
    WHEN (OLD.wanted <> NEW.wanted) EXECUTE FUNCTION tell_work();
