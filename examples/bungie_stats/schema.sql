-- What the job reads, what it fills, and what is made of that.
CREATE SCHEMA stats;

CREATE TABLE stats.t_member (
    member_id integer PRIMARY KEY,
    group_id integer NOT NULL,
    clan_id integer NOT NULL,
    destiny_name text NOT NULL,
    destiny_id bigint NOT NULL,
    destiny_membership_type integer NOT NULL
);

CREATE TABLE stats.t_character (
    character_id bigint PRIMARY KEY,
    member_id integer NOT NULL REFERENCES stats.t_member
);

CREATE TABLE stats.t_aggregate_activity_stats (
    group_id integer NOT NULL,
    clan_id integer NOT NULL,
    member_id integer NOT NULL,
    character_id bigint NOT NULL,
    activity_hash bigint NOT NULL,
    stat_id text NOT NULL,
    stat jsonb NOT NULL,
    PRIMARY KEY (character_id, activity_hash, stat_id)
);

-- A table that a view depends on is replaced, too, but where it is: all rows are written once more. Where PostgreSQL does not
-- tie the two together, the new table just takes the place of the old one, in a moment: a function whose body is a text finds
-- the table by its name, each time.
CREATE FUNCTION stats.member() RETURNS TABLE (member_id integer, statistics bigint, kills numeric)
LANGUAGE sql STABLE AS $$
    SELECT member_id, count(*), sum((stat #>> '{basic,value}')::numeric) FILTER (WHERE stat_id = 'activityKills')
    FROM stats.t_aggregate_activity_stats
    GROUP BY member_id
$$;

CREATE MATERIALIZED VIEW stats.mv_member AS SELECT * FROM stats.member();
