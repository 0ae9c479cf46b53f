"""A stand-in for what the service uses of Citus: its setting, its metadata, and the functions that it calls.

It makes a plain database look like a coordinator with one worker, and only notes that a table is distributed. It shows
what the service sends, and that PostgreSQL accepts this. Only `tests/scaling/test_citus.py`, on a real cluster, shows
that Citus does.
"""

STAND_IN = """
CREATE TABLE pg_dist_node (
    nodeid int, groupid int, nodename text, nodeport int, isactive bool, noderole text, shouldhaveshards bool
);
INSERT INTO pg_dist_node VALUES (1, 0, 'coordinator', 5432, true, 'primary', false),
    (2, 1, 'worker', 5432, true, 'primary', true);
CREATE TABLE pg_dist_partition (logicalrelid regclass, partmethod "char");
GRANT SELECT ON pg_dist_partition TO PUBLIC; -- as in Citus
CREATE TABLE node_results (nodeid int, success bool, result text);
INSERT INTO node_results VALUES (1, true, 't'), (2, true, 't');
CREATE FUNCTION run_command_on_all_nodes(command text) RETURNS SETOF node_results LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE command; -- it has to be valid SQL
    RETURN QUERY TABLE node_results;
END $$;
CREATE FUNCTION create_distributed_table(name regclass, distribution_column text, shard_count int) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('citus.enable_unsafe_triggers', true) IS DISTINCT FROM 'on' THEN
        RAISE EXCEPTION 'cannot distribute relation "%" because it has triggers', name;
    END IF;
    INSERT INTO pg_dist_partition
    SELECT name, 'h' UNION ALL SELECT inhrelid, 'h' FROM pg_inherits WHERE inhparent = name;
END $$;
CREATE FUNCTION run_command_on_shards(name regclass, command text)
RETURNS TABLE (shardid bigint, success bool, result text) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format(command, name) INTO result;
    RETURN QUERY SELECT 1::bigint, true, result;
END $$;
CREATE FUNCTION truncate_local_data_after_distributing_table(name regclass) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('TRUNCATE %s', name);
    PERFORM set_config('citus.enable_ddl_propagation', 'true', true);
END $$;
"""
