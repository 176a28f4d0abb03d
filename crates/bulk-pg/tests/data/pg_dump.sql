--
-- PostgreSQL database dump
--

\restrict k3yThatNobodyGuesses

-- Dumped from database version 18.1
-- Dumped by pg_dump version 18.1 (written by hand: every kind of statement that pg_dump 13 to 18 writes)

SET statement_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;

DROP DATABASE IF EXISTS sample;
--
-- Name: sample; Type: DATABASE; Schema: -; Owner: django
--

CREATE DATABASE sample WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc LOCALE = 'en_US.UTF-8';


ALTER DATABASE sample OWNER TO django;

\unrestrict k3yThatNobodyGuesses
\connect sample
\restrict k3yThatNobodyGuesses

COMMENT ON DATABASE sample IS 'a database';
ALTER DATABASE sample SET search_path TO 'other';

--
-- Name: public; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA public;
COMMENT ON SCHEMA public IS 'standard public schema';
CREATE SCHEMA "My Schema";
ALTER SCHEMA "My Schema" OWNER TO django;
COMMENT ON SCHEMA "My Schema" IS 'not; the end';
CREATE EXTENSION IF NOT EXISTS btree_gist WITH SCHEMA public;
COMMENT ON EXTENSION btree_gist IS 'support for indexing common datatypes in GiST';
CREATE TYPE public.mood AS ENUM (
    'sad;',
    'it''s ok'
);
CREATE DOMAIN public.positive AS integer
	CONSTRAINT positive_check CHECK ((VALUE > 0));
CREATE COLLATION public.german (provider = icu, locale = 'de');
CREATE CAST (public.mood AS integer) WITH INOUT;

--
-- Name: larger(integer, integer); Type: FUNCTION; Schema: public; Owner: django
--

CREATE FUNCTION public.larger(a integer, b integer) RETURNS integer
    LANGUAGE sql IMMUTABLE
    BEGIN ATOMIC
 SELECT
         CASE
             WHEN (a > b) THEN a
             ELSE b
         END AS b;
 SELECT (a + b);
END;


ALTER FUNCTION public.larger(a integer, b integer) OWNER TO django;

CREATE FUNCTION public.touch() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
BEGIN
    -- a ';' and a ' in the body, and $x$
    RETURN NEW;
END;
$_$;
CREATE PROCEDURE public."Do It"()
    LANGUAGE sql
    AS $$SELECT 1;$$;
CREATE AGGREGATE public.largest(integer) (
    SFUNC = public.larger,
    STYPE = integer
);
CREATE OPERATOR public.@> (
    FUNCTION = public.larger,
    LEFTARG = integer,
    RIGHTARG = integer
);
CREATE TEXT SEARCH CONFIGURATION public.words (
    PARSER = pg_catalog."default" );
ALTER TEXT SEARCH CONFIGURATION public.words
    ADD MAPPING FOR asciiword WITH simple;
CREATE FOREIGN DATA WRAPPER wrapper;
CREATE SERVER elsewhere FOREIGN DATA WRAPPER wrapper;
CREATE USER MAPPING FOR django SERVER elsewhere OPTIONS (
    password 'secret'
);
COMMENT ON SERVER elsewhere IS 'far';

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: Parent "P"; Type: TABLE; Schema: My Schema; Owner: django
--

CREATE TABLE "My Schema"."Parent ""P""" (
    id integer NOT NULL,
    "Group" text DEFAULT 'a;b''c'::text NOT NULL,
    m public.mood DEFAULT 'sad;'::public.mood,
    exclude boolean,
    "check" integer,
    required character varying(10) CONSTRAINT "Parent ""P""_required_not_null" NOT NULL,
    CONSTRAINT "Parent ""P""_check_check" CHECK (("check" > 0))
);


ALTER TABLE "My Schema"."Parent ""P""" OWNER TO django;

COMMENT ON TABLE "My Schema"."Parent ""P""" IS 'it''s; a comment';
COMMENT ON COLUMN "My Schema"."Parent ""P"""."Group" IS 'a column';
CREATE SEQUENCE "My Schema"."Parent ""P""_id_seq"
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE "My Schema"."Parent ""P""_id_seq" OWNED BY "My Schema"."Parent ""P""".id;

CREATE TABLE public.child (
    id bigint NOT NULL,
    a integer,
    b text DEFAULT
CASE
    WHEN (NOT true) THEN NULL::text
    ELSE 'x'::text
END NOT NULL,
    c numeric(10,2)[],
    "To" integer,
    d timestamp(3) with time zone DEFAULT now() NOT NULL,
    e integer GENERATED ALWAYS AS ((a * 2)) STORED,
    f character varying(20) DEFAULT 'x'::character varying COLLATE pg_catalog."C",
    g public.positive,
    h interval day to second(3),
    during tsrange,
    v integer GENERATED ALWAYS AS ((a + 1)),
    CONSTRAINT nn CHECK (((a IS NOT NULL) AND (b <> ';'::text)))
);
ALTER TABLE ONLY public.child ALTER COLUMN a SET (n_distinct=5);
ALTER TABLE ONLY public.child ALTER COLUMN b SET STATISTICS 500;
ALTER TABLE ONLY public.child ALTER COLUMN b SET STORAGE EXTERNAL;
ALTER TABLE ONLY public.child ALTER COLUMN b SET COMPRESSION pglz;

ALTER TABLE ONLY public.child FORCE ROW LEVEL SECURITY;

COMMENT ON CONSTRAINT nn ON public.child IS 'a check';

ALTER TABLE public.child ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME public.child_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE FOREIGN TABLE public.far (
    a integer
)
SERVER elsewhere;
ALTER FOREIGN TABLE ONLY public.far ALTER COLUMN a OPTIONS (
    password 'secret'
);
CREATE TABLE public.inheritor (
    x integer
)
INHERITS (public.child);
CREATE MATERIALIZED VIEW public.seen AS
 SELECT child.id
   FROM public.child
  WITH NO DATA;
CREATE TABLE public.part (
    id integer NOT NULL,
    k text DEFAULT 'z'::text NOT NULL,
    p integer
)
PARTITION BY LIST (k);
CREATE UNLOGGED TABLE public.part_a (
    id integer NOT NULL,
    k text DEFAULT 'z'::text NOT NULL,
    p integer
);
CREATE TABLE public.typed OF public.pair (
    a NOT NULL,
    b DEFAULT 'q'::text
);
CREATE SEQUENCE public.lone
    START WITH 5
    CACHE 1;
CREATE VIEW public.shown AS
 SELECT child.id
   FROM public.child
  WHERE (child.b <> ';'::text);
CREATE VIEW public.grouped AS
SELECT
    NULL::bigint AS id,
    NULL::text AS b;
ALTER TABLE ONLY public.part ATTACH PARTITION public.part_a FOR VALUES IN ('a;', 'b');
ALTER TABLE ONLY "My Schema"."Parent ""P""" ALTER COLUMN id SET DEFAULT nextval('"My Schema"."Parent ""P""_id_seq"'::regclass);

--
-- Data for Name: Parent "P"; Type: TABLE DATA; Schema: My Schema; Owner: django
--

COPY "My Schema"."Parent ""P""" (id, "Group", m, exclude, "check", required) FROM stdin;
1	tab\tx	\N	t	2	'
2	\\.	sad;	\N	\N	$$
\.


INSERT INTO public.child VALUES (1);
SELECT pg_catalog.lo_create('16400');
SELECT pg_catalog.setval('"My Schema"."Parent ""P""_id_seq"', 1, false);
SELECT * FROM pg_catalog.pg_restore_relation_stats(
	'version', '180001'::integer,
	'schemaname', 'public'
);

--
-- Name: child child_pkey; Type: CONSTRAINT; Schema: public; Owner: django
--

ALTER TABLE ONLY public.child
    ADD CONSTRAINT child_pkey PRIMARY KEY (id);

ALTER TABLE public.child CLUSTER ON child_pkey;

CREATE FUNCTION public.late() RETURNS bigint
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT q.id FROM (SELECT child.id, child.b FROM public.child GROUP BY child.id) q;
END;
CREATE MATERIALIZED VIEW public.seen_late AS
 SELECT child.id,
    child.b
   FROM public.child
  GROUP BY child.id
  WITH NO DATA;
COMMENT ON MATERIALIZED VIEW public.seen_late IS 'behind the primary key';
ALTER TABLE ONLY "My Schema"."Parent ""P"""
    ADD CONSTRAINT "Parent ""P""_key" UNIQUE NULLS NOT DISTINCT ("Group", "check");
ALTER TABLE ONLY public.child
    ADD CONSTRAINT child_during_excl EXCLUDE USING gist (a WITH =, during WITH &&);
ALTER TABLE public.child
    ADD CONSTRAINT late CHECK ((a < 5)) NOT VALID;
ALTER TABLE public.child
    ADD CONSTRAINT late_not_null NOT NULL a NOT VALID;
ALTER TABLE ONLY public.inheritor
    ADD CONSTRAINT inheritor_pkey PRIMARY KEY (id, during WITHOUT OVERLAPS);
ALTER TABLE ONLY public.part
    ADD CONSTRAINT part_pkey PRIMARY KEY (id, k);
ALTER TABLE ONLY public.part_a
    ADD CONSTRAINT part_a_pkey PRIMARY KEY (id, k);
ALTER DOMAIN public.positive
    ADD CONSTRAINT small CHECK ((VALUE < 1000)) NOT VALID;
CREATE INDEX "Idx" ON public.child USING btree (lower(b), ((a + 1)));
ALTER INDEX public."Idx" ALTER COLUMN 2 SET STATISTICS 100;
COMMENT ON INDEX public."Idx" IS 'an index';
CREATE UNIQUE INDEX child_replica ON public.child USING btree (id, d);
ALTER TABLE ONLY public.child REPLICA IDENTITY USING INDEX child_replica;
CREATE INDEX part_p ON ONLY public.part USING btree (p);
CREATE INDEX seen_late_b ON public.seen_late USING btree (b);
CREATE UNIQUE INDEX seen_id ON public.seen USING btree (id);
ALTER INDEX public.part_pkey ATTACH PARTITION public.part_a_pkey;
CREATE STATISTICS public.together (ndistinct) ON a, b FROM public.child;
ALTER STATISTICS public.together SET STATISTICS 50;
CREATE OR REPLACE VIEW public.grouped AS
 SELECT child.id,
    child.b
   FROM public.child
  GROUP BY child.id;
CREATE RULE r AS
    ON DELETE TO public.child
   WHERE (old.a = 1) DO INSTEAD ( SELECT 1 AS "?column?";
 SELECT 2 AS "?column?";
);

--
-- Name: child changed; Type: TRIGGER; Schema: public; Owner: django
--

CREATE CONSTRAINT TRIGGER checked AFTER INSERT ON public.child DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.touch('a;', 'b');
ALTER TABLE public.child ENABLE ALWAYS TRIGGER checked;
CREATE TRIGGER same BEFORE UPDATE ON public.child FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
CREATE TRIGGER touch BEFORE UPDATE OF a, "To" ON public.child FOR EACH ROW WHEN ((old.a IS DISTINCT FROM new.a)) EXECUTE FUNCTION public.touch();
CREATE TRIGGER history AFTER UPDATE ON public.child FOR EACH ROW EXECUTE PROCEDURE public."not dumped"();
ALTER TABLE public.child DISABLE TRIGGER history;
COMMENT ON TRIGGER history ON public.child IS 'its function is absent';
COMMENT ON TRIGGER touch ON public.child IS 'its function is there';

--
-- Name: child fk "1"; Type: FK CONSTRAINT; Schema: public; Owner: django
--

ALTER TABLE ONLY public.child
    ADD CONSTRAINT "fk ""1""" FOREIGN KEY ("To") REFERENCES "My Schema"."Parent ""P"""(id) MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL ("To") DEFERRABLE INITIALLY DEFERRED;
ALTER TABLE ONLY public.child
    ADD CONSTRAINT fk2 FOREIGN KEY (b, a) REFERENCES "My Schema"."Parent ""P"""("Group", "check") NOT VALID;
COMMENT ON CONSTRAINT fk2 ON public.child IS 'a foreign key';
ALTER TABLE ONLY public.child
    ADD CONSTRAINT fk3 FOREIGN KEY (id, PERIOD during) REFERENCES public.inheritor(id, PERIOD during);
ALTER TABLE ONLY public.child
    ADD CONSTRAINT fk4 FOREIGN KEY (a) REFERENCES public.child(id) NOT ENFORCED;
ALTER TABLE ONLY public.child
    ADD CONSTRAINT fk5 FOREIGN KEY (a) REFERENCES public.auth_user(id) DEFERRABLE INITIALLY DEFERRED;
COMMENT ON CONSTRAINT fk5 ON public.child IS 'its parent is absent';
ALTER TABLE public.part
    ADD CONSTRAINT part_fk FOREIGN KEY (p) REFERENCES "My Schema"."Parent ""P"""(id);
ALTER TABLE public.child ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON public.child USING ((a > 1));
COMMENT ON POLICY p ON public.child IS 'a policy';
CREATE PUBLICATION everything WITH (publish = 'insert, update');
ALTER PUBLICATION everything ADD TABLE ONLY public.child WHERE ((id > 1));
CREATE SUBSCRIPTION from_afar CONNECTION 'host=far password=secret' PUBLICATION everything WITH (connect = false);
SECURITY LABEL FOR selinux ON TABLE public.child IS 'label';
GRANT SELECT ON TABLE public.child TO django;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT SELECT ON TABLES TO django;
CREATE EVENT TRIGGER watch ON ddl_command_start
   EXECUTE FUNCTION public.touch();
REFRESH MATERIALIZED VIEW public.seen;
REFRESH MATERIALIZED VIEW public.seen_late;

--
-- What pg_dump does not write
--

DO $$ BEGIN PERFORM 1; END $$;
ALTER TABLE public.child ADD COLUMN z integer, ADD COLUMN y integer;
CREATE TABLE public.copied AS SELECT 1;
CREATE ROLE somebody PASSWORD 'secret';

--
-- PostgreSQL database dump complete
--

\unrestrict k3yThatNobodyGuesses

