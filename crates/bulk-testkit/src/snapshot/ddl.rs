//! The schema file: DDL laid out and ordered as `pg_dump --create --schema-only` prints it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use md5::{Digest as _, Md5};

use super::catalog::{CATALOG, History, Key, Table};

/// Which schema file a snapshot comes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemaFlavour {
    /// The 33 published tables, `search_parentheticalgroup`, three tables of row history with the functions and
    /// triggers that fill them. Loads without an error, given the role `django` and the locale `en_US.UTF-8`.
    #[default]
    Clean,
    /// What the publisher's own options leave: ten tables more, of which no CSV is published, no functions (so that
    /// every CREATE TRIGGER fails), foreign keys to the absent `auth_user`, `\restrict`, `SET transaction_timeout`.
    Published,
}

impl SchemaFlavour {
    /// The text of the schema file.
    #[must_use]
    pub fn sql(self) -> String {
        let mut dump = Dump::new(self);
        dump.head();
        dump.body();
        dump.foot();
        dump.out
    }
}

const RESTRICT_KEY: &str = "3c6e0b8a9c15224a8228b9a98ca1533520fc5282a8fd12ee4f4c1cae7d7e";

struct Dump {
    flavour: SchemaFlavour,
    out: String,
}

/// The definitions of one kind, by name: pg_dump sorts each kind so.
type ByName = BTreeMap<String, String>;

impl Dump {
    fn new(flavour: SchemaFlavour) -> Self {
        Self { flavour, out: String::with_capacity(160 << 10) }
    }

    fn put(&mut self, text: impl AsRef<str>) {
        self.out.push_str(text.as_ref());
    }

    fn is_published(&self) -> bool {
        self.flavour == SchemaFlavour::Published
    }

    /// A definition under the comment that pg_dump gives it.
    fn entry(&mut self, name: &str, kind: &str, sql: &str) {
        let schema = if kind == "DATABASE" { "-" } else { "public" };
        self.put(format!("--\n-- Name: {name}; Type: {kind}; Schema: {schema}; Owner: django\n--\n\n{sql}\n\n\n"));
    }

    /// An owner line belongs to the entry before it and takes the place of its last empty line.
    fn owner(&mut self, kind: &str, name: &str) {
        self.put(format!("ALTER {kind} {name} OWNER TO django;\n\n"));
    }

    fn head(&mut self) {
        self.put("--\n-- PostgreSQL database dump\n--\n\n");
        if self.is_published() {
            self.put(format!("\\restrict {RESTRICT_KEY}\n\n"));
            self.put(
                "-- Dumped from database version 14.17\n-- Dumped by pg_dump version 18.1 (imitated: test data)\n\n",
            );
        } else {
            self.put(
                "-- Dumped from database version 15.18\n-- Dumped by pg_dump version 15.18 (imitated: test data)\n\n",
            );
        }
        self.settings();
        self.entry(
            "courtlistener",
            "DATABASE",
            "CREATE DATABASE courtlistener WITH TEMPLATE = template0 ENCODING = 'UTF8' LOCALE_PROVIDER = libc \
             LOCALE = 'en_US.UTF-8';",
        );
        self.owner("DATABASE", "courtlistener");
        if self.is_published() {
            self.put(format!("\\unrestrict {RESTRICT_KEY}\n\\connect courtlistener\n\\restrict {RESTRICT_KEY}\n\n"));
        } else {
            self.put("\\connect courtlistener\n");
        }
        self.settings();
    }

    fn settings(&mut self) {
        self.put("SET statement_timeout = 0;\nSET lock_timeout = 0;\nSET idle_in_transaction_session_timeout = 0;\n");
        if self.is_published() {
            self.put("SET transaction_timeout = 0;\n");
        }
        self.put(
            "SET client_encoding = 'UTF8';\nSET standard_conforming_strings = on;\n\
             SELECT pg_catalog.set_config('search_path', '', false);\nSET check_function_bodies = false;\n\
             SET xmloption = content;\nSET client_min_messages = warning;\nSET row_security = off;\n\n",
        );
    }

    fn foot(&mut self) {
        self.put("--\n-- PostgreSQL database dump complete\n--\n\n");
        if self.is_published() {
            self.put(format!("\\unrestrict {RESTRICT_KEY}\n\n"));
        }
    }

    fn body(&mut self) {
        let published = self.is_published();
        let tables: BTreeMap<&str, &Table> = CATALOG
            .tables
            .iter()
            .filter(|table| published || !table.is_only_in_the_published_dump())
            .map(|table| (table.name, table))
            .collect();
        let triggers: BTreeMap<String, (&History, &str, &str)> = CATALOG
            .history
            .iter()
            .flat_map(|history| history.triggers.iter().map(move |(event, note)| (history, *event, *note)))
            .map(|(history, event, note)| (trigger_name(history.table, event), (history, event, note)))
            .collect();

        if !published {
            for (name, (history, event, _)) in &triggers {
                self.entry(&format!("{name}()"), "FUNCTION", &function(name, history, event, tables[history.table]));
                self.owner("FUNCTION", &format!("public.{name}()"));
            }
        }
        self.put("SET default_tablespace = '';\n\nSET default_table_access_method = heap;\n\n");

        let events: BTreeMap<&str, &History> = CATALOG.history.iter().map(|h| (h.events, h)).collect();
        let mut names: Vec<&str> = tables.keys().chain(events.keys()).copied().collect();
        names.sort_unstable();
        for name in names {
            match events.get(name) {
                Some(history) => self.event_table(history, tables[history.table]),
                None => self.table(tables[name]),
            }
        }
        for table in tables.values() {
            if matches!(table.key, Key::BigSerial | Key::Serial) {
                let name = table.name;
                self.entry(
                    &format!("{name} id"),
                    "DEFAULT",
                    &format!(
                        "ALTER TABLE ONLY public.{name} ALTER COLUMN id SET DEFAULT \
                         nextval('public.{name}_id_seq'::regclass);"
                    ),
                );
            }
        }
        let mut constraints = ByName::new();
        let mut indexes = ByName::new();
        let mut foreign_keys = ByName::new();
        for history in events.values() {
            let name = history.events;
            constraints.insert(
                format!("{name}_pkey"),
                format!("{name}\0ALTER TABLE ONLY public.{name}\n    ADD CONSTRAINT {name}_pkey PRIMARY KEY (pgh_id);"),
            );
        }
        for table in tables.values() {
            for (name, definition) in table_constraints(table) {
                constraints.insert(name.clone(), alter(table.name, &name, &definition));
            }
            indexes.extend(table_indexes(table));
            for (name, definition) in table_foreign_keys(table) {
                foreign_keys.insert(name.clone(), alter(table.name, &name, &definition));
            }
        }
        for (name, sql) in &constraints {
            let (table, sql) = sql.split_once('\0').expect("alter puts the table first");
            self.entry(&format!("{table} {name}"), "CONSTRAINT", sql);
        }
        for (name, sql) in &indexes {
            self.entry(name, "INDEX", sql);
        }
        for (name, (history, event, note)) in &triggers {
            let table = history.table;
            let when = if *event == "update" { " WHEN ((old.* IS DISTINCT FROM new.*))" } else { "" };
            self.entry(
                &format!("{table} {name}"),
                "TRIGGER",
                &format!(
                    "CREATE TRIGGER {name} AFTER {} ON public.{table} FOR EACH ROW{when} \
                     EXECUTE FUNCTION public.{name}();",
                    event.to_uppercase()
                ),
            );
            self.entry(
                &format!("TRIGGER {name} ON {table}"),
                "COMMENT",
                &format!("COMMENT ON TRIGGER {name} ON public.{table} IS '{note}';"),
            );
        }
        for (name, sql) in &foreign_keys {
            let (table, sql) = sql.split_once('\0').expect("alter puts the table first");
            self.entry(&format!("{table} {name}"), "FK CONSTRAINT", sql);
        }
    }

    fn table(&mut self, table: &Table) {
        let mut lines: Vec<String> =
            table.columns.iter().map(|c| column_line(c.name, &c.sql_type, c.nullable)).collect();
        let mut checks: Vec<String> = (table.nonnegative.iter())
            .map(|c| {
                let name = identifier(table.name, &[c], "check");
                format!("    CONSTRAINT {name} CHECK (({c} >= 0))")
            })
            .collect();
        checks.sort_unstable();
        lines.extend(checks);
        self.create_table(table.name, &lines);
        self.sequence(table.name, "id", table.key);
    }

    fn event_table(&mut self, history: &History, table: &Table) {
        let mut lines = vec![
            column_line("pgh_id", "integer", false),
            column_line("pgh_created_at", "timestamp with time zone", false),
            column_line("pgh_label", "text", false),
        ];
        lines.extend(copied(history, table).map(|c| column_line(c.name, &c.sql_type, c.nullable)));
        if points_back(history) {
            lines.push(column_line("pgh_obj_id", "integer", false));
        }
        lines.push(column_line("pgh_context_id", "uuid", true));
        self.create_table(history.events, &lines);
        self.sequence(history.events, "pgh_id", Key::Identity);
    }

    fn create_table(&mut self, name: &str, lines: &[String]) {
        self.entry(name, "TABLE", &format!("CREATE TABLE public.{name} (\n{}\n);", lines.join(",\n")));
        self.owner("TABLE", &format!("public.{name}"));
    }

    fn sequence(&mut self, table: &str, column: &str, key: Key) {
        let sequence = format!("{table}_{column}_seq");
        const RANGE: &str = "    START WITH 1\n    INCREMENT BY 1\n    NO MINVALUE\n    NO MAXVALUE\n    CACHE 1";
        match key {
            Key::Natural => {}
            Key::Identity => self.entry(
                &sequence,
                "SEQUENCE",
                &format!(
                    "ALTER TABLE public.{table} ALTER COLUMN {column} ADD GENERATED BY DEFAULT AS IDENTITY (\n    \
                     SEQUENCE NAME public.{sequence}\n{RANGE}\n);"
                ),
            ),
            Key::BigSerial | Key::Serial => {
                let kind = if key == Key::Serial { "    AS integer\n" } else { "" };
                self.entry(&sequence, "SEQUENCE", &format!("CREATE SEQUENCE public.{sequence}\n{kind}{RANGE};"));
                self.owner("TABLE", &format!("public.{sequence}"));
                self.entry(
                    &sequence,
                    "SEQUENCE OWNED BY",
                    &format!("ALTER SEQUENCE public.{sequence} OWNED BY public.{table}.{column};"),
                );
            }
        }
    }
}

fn column_line(name: &str, sql_type: &str, nullable: bool) -> String {
    format!("    {} {sql_type}{}", quoted(name), if nullable { "" } else { " NOT NULL" })
}

/// The one column name here that is a keyword.
pub(super) fn quoted(column: &str) -> &str {
    if column == "position" { "\"position\"" } else { column }
}

fn list(columns: &[&str]) -> String {
    columns.iter().map(|column| quoted(column)).collect::<Vec<_>>().join(", ")
}

fn alter(table: &str, name: &str, definition: &str) -> String {
    format!("{table}\0ALTER TABLE ONLY public.{table}\n    ADD CONSTRAINT {name} {definition};")
}

fn table_constraints(table: &Table) -> Vec<(String, String)> {
    let mut out = vec![(format!("{}_pkey", table.name), "PRIMARY KEY (id)".to_owned())];
    for columns in &table.unique {
        let name = match table.given_name("unique", &columns.join(",")) {
            Some(name) => name.to_owned(),
            None if columns.len() == 1 => identifier(table.name, columns, "key"),
            None => identifier(table.name, columns, &format!("{}_uniq", digest(table.name, columns, 8))),
        };
        out.push((name, format!("UNIQUE ({})", list(columns))));
    }
    out
}

fn table_indexes(table: &Table) -> Vec<(String, String)> {
    let t = table.name;
    let mut out = Vec::new();
    let mut push = |columns: &[&str], operators: &str, tail: &str| {
        let name = identifier(t, columns, &format!("{}{tail}", digest(t, columns, 8)));
        let sql = format!("CREATE INDEX {name} ON public.{t} USING btree ({}{operators});", list(columns));
        out.push((name, sql));
    };
    let operators = |column: &str| match table.column(column) {
        Some(column) if column.sql_type == "text" => " text_pattern_ops",
        _ => " varchar_pattern_ops",
    };
    for columns in &table.index {
        push(columns, "", "");
    }
    for column in &table.like {
        push(&[column], operators(column), "_like");
    }
    for column in table.columns.iter().filter(|column| column.references.is_some()) {
        if !table.unique.iter().any(|columns| columns == &[column.name]) {
            push(&[column.name], "", "");
            if column.sql_type.starts_with("character") {
                push(&[column.name], operators(column.name), "_like");
            }
        }
    }
    for column in &table.hash {
        let name = table.given_name("hash", column).expect("a hash index has a given name");
        out.push((name.to_owned(), format!("CREATE INDEX {name} ON public.{t} USING hash ({column});")));
    }
    for over in &table.expression {
        let name = table.given_name("expression", over).expect("an index over expressions has a given name");
        let over = over.replace(',', ", ");
        out.push((name.to_owned(), format!("CREATE UNIQUE INDEX {name} ON public.{t} USING btree ({over});")));
    }
    out
}

fn table_foreign_keys(table: &Table) -> Vec<(String, String)> {
    let keys = table.columns.iter().filter_map(|column| Some((column.name, column.references?)));
    keys.map(|(column, parent)| {
        let name = match table.given_name("constraint", column) {
            Some(name) => name.to_owned(),
            None => {
                let mut tail = format!("{}_fk_{parent}_id", digest(table.name, &[column], 8));
                tail.truncate(40);
                identifier(table.name, &[column], &tail)
            }
        };
        let sql =
            format!("FOREIGN KEY ({}) REFERENCES public.{parent}(id) DEFERRABLE INITIALLY DEFERRED", quoted(column));
        (name, sql)
    })
    .collect()
}

/// An identifier of at most 63 bytes, shortened in both its parts, after the manner of Django's names.
fn identifier(table: &str, columns: &[&str], tail: &str) -> String {
    let columns = columns.join("_");
    let full = format!("{table}_{columns}_{tail}");
    if full.len() <= 63 {
        return full;
    }
    let room = 63 - tail.len() - 2;
    let shorten = |text: &str, length: usize| text[..length.min(text.len())].to_owned();
    format!("{}_{}_{tail}", shorten(table, room / 2), shorten(&columns, room - room / 2))
}

/// The first hexadecimal digits of the MD5 of a table and some of its columns.
fn digest(table: &str, columns: &[&str], digits: usize) -> String {
    let mut hash = Md5::new();
    hash.update(table);
    for column in columns {
        hash.update("|");
        hash.update(column);
    }
    let mut out = String::new();
    for byte in hash.finalize() {
        write!(out, "{byte:02x}").expect("a String takes everything");
    }
    out.truncate(digits);
    out
}

fn trigger_name(table: &str, event: &str) -> String {
    format!("pgtrigger_{event}_{event}_{}", digest(table, &[event], 5))
}

/// The columns that a table of events copies.
fn copied<'a>(history: &'a History, table: &'a Table) -> impl Iterator<Item = &'a super::catalog::Column> {
    table.columns.iter().filter(|column| !history.skip.contains(&column.name))
}

/// Whether events name the row they belong to; those that are written with the row do not.
fn points_back(history: &History) -> bool {
    !history.triggers.iter().any(|(event, _)| *event == "insert")
}

fn function(name: &str, history: &History, event: &str, table: &Table) -> String {
    let record = if event == "insert" { "NEW" } else { "OLD" };
    let mut columns: Vec<String> = copied(history, table).map(|c| c.name.to_owned()).collect();
    let mut values: Vec<String> = columns.iter().map(|column| format!("{record}.{column}")).collect();
    columns.extend(["pgh_created_at".to_owned(), "pgh_label".to_owned()]);
    values.extend(["now()".to_owned(), format!("'{event}'")]);
    if points_back(history) {
        columns.push("pgh_obj_id".to_owned());
        values.push(format!("{record}.id"));
    }
    format!(
        "CREATE FUNCTION public.{name}() RETURNS trigger\n    LANGUAGE plpgsql\n    AS $$\nBEGIN\n    \
         -- one row of history; a ';' and a ' in the body, on purpose\n    \
         INSERT INTO public.{} ({})\n    VALUES ({});\n    RETURN NULL;\nEND;\n$$;",
        history.events,
        columns.join(", "),
        values.join(", ")
    )
}
