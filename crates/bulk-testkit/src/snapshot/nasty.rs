//! Rows that hold what careless parsers get wrong.

use super::TABLES;
use super::pen::Pen;
use super::world::TableId;

/// Columns of free text that no index covers, so that no value is too long for one.
fn columns(table: TableId) -> &'static [&'static str] {
    match table {
        TableId::Docket => &[
            "case_name_short",
            "case_name",
            "case_name_full",
            "docket_number",
            "cause",
            "nature_of_suit",
            "assigned_to_str",
            "panel_str",
            "appeal_from_str",
            "docket_number_raw",
        ],
        TableId::Cluster => &[
            "judges",
            "case_name",
            "case_name_full",
            "attorneys",
            "syllabus",
            "headnotes",
            "summary",
            "disposition",
            "other_dates",
            "headmatter",
        ],
        TableId::Opinion => {
            &["plain_text", "html", "html_with_citations", "xml_harvard", "author_str", "joined_by_str"]
        }
        TableId::Parenthetical => &["text"],
        TableId::Audio => &["case_name", "judges", "stt_transcript"],
        TableId::Investment => &["description", "transaction_partner"],
        TableId::Reimbursement => &["source", "date_raw", "location", "purpose", "items_paid_or_provided"],
        TableId::Unmatched => &["citation_string", "court_id"],
        TableId::Originating => &["docket_number", "court_reporter"],
        _ => &[],
    }
}

const STRINGS: &[&str] = &[
    // The end-of-data marker of COPY, alone in a line and nearly so.
    "first line\n\\.\nthird line",
    "\\.",
    "\n\\.\n",
    "\\.\n",
    "x\n\\.",
    "\r\n\\.\r\n",
    "\\..",
    " \\.",
    // Backslashes, quotes, and each before the other.
    "ends in a backslash \\",
    "\\",
    "\\\\",
    "\\\"",
    "\"\\",
    "\\\\\"",
    "C:\\new\\table\\\"quoted\"",
    "\\`",
    "`\\",
    "\"",
    "\"\"",
    "\"\"\"",
    "one \" lone quote",
    "\",\"",
    "\"\n\"123\",\"2020-01-01\"",
    "'",
    "','",
    "`",
    "``",
    "`,`",
    "`\n`",
    // Line ends, tabs, and spaces at either end.
    "a\r\nb\rc\nd\n\re",
    "\r",
    "\n",
    "\r\n",
    "\t",
    "a\tb\tc",
    "tab at the end\t",
    " leading",
    "trailing ",
    " ",
    "  ",
    // What may be taken for NULL, for a header, for SQL, for another format.
    "",
    "NULL",
    "null",
    "\\N",
    "\\n",
    "(null)",
    "N/A",
    ",",
    ",,",
    "a,b",
    "id,date_created,date_modified",
    "-",
    "--",
    "#",
    "$$",
    "; DROP TABLE search_docket; --",
    "=1+1",
    "{\"a\": \"b\\n\"}",
    "&lt;p&gt; &amp; <p class=\"x\">",
    "\\x41\\101\\u0041",
    // Characters of one to four bytes, marks that combine, and controls that are legal in UTF-8.
    "§ 1983 — “curly” ‘single’ naïve",
    "Привет, мир",
    "最高裁判所の判決",
    "مرحبا",
    "שלום",
    "e\u{301} and é",
    "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🧑\u{200d}⚖️ 𠜎",
    "\u{feff}a byte order mark first",
    "no-break\u{a0}space",
    "\u{2028}line separator",
    "\u{85}next line",
    "\u{fffd}",
    "controls \u{1}\u{2}\u{8}\u{b}\u{c}\u{e}\u{1b}\u{1f}\u{7f}",
    "\u{b}",
    "\u{c}",
];

const DATES: &[&str] =
    &["1750-01-01", "0001-01-01", "0099-01-02", "0044-03-15 BC", "infinity", "-infinity", "9999-12-31", "12026-01-01"];
const TIMES: &[&str] = &[
    "1750-01-01 00:00:00+00",
    "0001-01-01 00:00:00+00",
    "infinity",
    "-infinity",
    "0044-03-15 12:00:00+00 BC",
    "2020-02-29 23:59:59.999999+00",
    "2020-01-01 00:00:00.1+00",
    "9999-12-31 23:59:59+00",
    "12026-01-01 00:00:00+00",
];
const FLOATS: &[&str] = &[
    "0",
    "-0",
    "1e-07",
    "0.1",
    "1e+15",
    "123456789012345",
    "1.7976931348623157e+308",
    "5e-324",
    "NaN",
    "Infinity",
    "-Infinity",
    "0.30000000000000004",
];

/// Texts too long for a constant: many lines, many escapes, a mebibyte.
const LONG: usize = 4;

fn text(at: usize) -> String {
    match at % (STRINGS.len() + LONG) {
        at if at < STRINGS.len() => STRINGS[at].to_owned(),
        at => match at - STRINGS.len() {
            0 => "many\n".repeat(400),
            1 => "\n".repeat(60) + "after sixty empty lines",
            2 => "\"\\".repeat(40),
            _ => "`\"'".repeat(40),
        },
    }
}

/// The columns that hold a mebibyte in a row of their own.
fn huge(table: TableId) -> &'static [&'static str] {
    match table {
        TableId::Opinion => &["plain_text", "html_with_citations", "xml_harvard"],
        TableId::Cluster => &["headmatter"],
        _ => &[],
    }
}

/// How many such rows the table has: every text stands once in each of its columns.
pub(super) fn rows(table: TableId) -> u64 {
    let texts = if columns(table).is_empty() { 0 } else { STRINGS.len() + LONG };
    (texts + huge(table).len()) as u64
}

/// Changes a finished row into the nasty one of this ordinal.
pub(super) fn spoil(pen: &mut Pen<'_>, table: TableId, ordinal: u64) {
    let ordinal = ordinal as usize;
    let facts = &TABLES[table as usize];
    let place = |name: &str| facts.csv.iter().position(|column| *column == name);
    for (at, name) in facts.csv.iter().enumerate() {
        let odd = match facts.column(name).map(|column| column.sql_type.as_str()) {
            Some("date") => DATES,
            Some("timestamp with time zone") => TIMES,
            Some("double precision") => FLOATS,
            _ => continue,
        };
        if (ordinal + at).is_multiple_of(3) {
            pen.row.replace(at, Some(odd[(ordinal / 3 + at) % odd.len()]));
        }
    }
    for (step, name) in columns(table).iter().enumerate() {
        let (Some(at), Some(column)) = (place(name), facts.column(name)) else { continue };
        let mut value = text(ordinal + step * 11);
        if let Some((end, _)) = column.max_chars().and_then(|most| value.char_indices().nth(most)) {
            value.truncate(end);
        }
        pen.row.replace(at, Some(&value));
    }
    let before = STRINGS.len() + LONG;
    if let Some(at) = ordinal.checked_sub(before).and_then(|at| huge(table).get(at)).and_then(|name| place(name)) {
        pen.row.replace(at, Some(&mebibyte()));
    }
}

/// 2^20 bytes of lines that need escapes in every dialect.
fn mebibyte() -> String {
    let mut out = String::with_capacity((1 << 20) + 64);
    for line in 0_u64.. {
        out.push_str(&format!("{line}: \"she said \\ `so`\"\r\n\\.\n"));
        if out.len() >= 1 << 20 {
            break;
        }
    }
    out.truncate(1 << 20);
    out
}
