//! Values as COPY's binary format has them: a value is the same however it was written in the file, and means what its text
//! does where that is easily said.

use bulk_pg::{BinaryType, CopyBinary, Dialect, NoCopyBinary, RecordOptions, Records, Source, Unencoded};

use crate::Take;

/// Object identifiers and modifiers, as `pg_attribute` has them: all types that are encoded, and arrays of some.
const TYPES: [(u32, i32); 28] = [
    (BOOL, -1),
    (INT2, -1),
    (INT4, -1),
    (INT8, -1),
    (FLOAT4, -1),
    (FLOAT8, -1),
    (1700, -1),
    (1700, 655_366),
    (1700, 65_541),
    (DATE, -1),
    (1114, -1),
    (1114, 3),
    (1184, -1),
    (1184, 0),
    (TEXT, -1),
    (1043, 9),
    (1042, 9),
    (JSON, -1),
    (JSONB, -1),
    (BYTEA, -1),
    (UUID, -1),
    (1007, -1),
    (1009, -1),
    (1182, -1),
    (1185, -1),
    (1231, 655_366),
    (3807, -1),
    (1001, -1),
];
const BOOL: u32 = 16;
const BYTEA: u32 = 17;
const INT8: u32 = 20;
const INT2: u32 = 21;
const INT4: u32 = 23;
const TEXT: u32 = 25;
const JSON: u32 = 114;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;
const DATE: u32 = 1082;
const UUID: u32 = 2950;
const JSONB: u32 = 3802;

/// See the module.
pub fn target(data: &[u8]) {
    let mut take = Take::new(data);
    let (oid, typmod) = take.one_of(&TYPES);
    let binary_type = BinaryType::new(oid, typmod).expect("a type that is encoded");
    let value = take.rest();
    // What is no text is refused by the reader, before it comes to values.
    let Ok(text) = str::from_utf8(value) else { return };
    if text.contains('\0') {
        return;
    }
    let doubled = encode(binary_type, Dialect::A, value);
    assert_eq!(encode(binary_type, Dialect::D, value), doubled);
    let constant = match CopyBinary::new(&[(Source::Constant(value.to_vec()), binary_type)], 0) {
        Ok(mut encoder) => {
            let mut row = Vec::new();
            let mut records = Records::new(&b"a\n\n"[..], Dialect::A, RecordOptions::default()).expect("a header");
            let record = records.next_record().expect("a record").expect("one");
            encoder.append(&record, &mut row).map(|()| row)
        }
        Err(NoCopyBinary::Constant(error)) => Err(error),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(constant, doubled);
    if let Ok(row) = doubled {
        let (head, encoded) = row.split_at(6);
        assert_eq!(head[..2], [0, 1]);
        assert_eq!(head[2..], (encoded.len() as i32).to_be_bytes());
        means(oid, text, encoded);
    }
}

/// The row of the value, which stands in quotes.
fn encode(binary_type: BinaryType, dialect: Dialect, value: &[u8]) -> Result<Vec<u8>, Unencoded> {
    let mut csv = b"a\n\"".to_vec();
    for byte in value {
        if [dialect.quote(), dialect.escape()].contains(byte) {
            csv.push(dialect.escape());
        }
        csv.push(*byte);
    }
    csv.extend(b"\"\n");
    let mut records = Records::new(&csv[..], dialect, RecordOptions::default()).expect("a header");
    let record = records.next_record().expect("a record").expect("one");
    let mut encoder = CopyBinary::new(&[(Source::Field(0), binary_type)], 1).expect("the field is there");
    let mut row = b"before".to_vec();
    let done = encoder.append(&record, &mut row);
    let row = row.split_off(b"before".len());
    match done {
        Ok(()) => Ok(row),
        Err(error) => {
            assert!(row.is_empty(), "what was not encoded is taken back");
            assert!(error.column() == 0);
            Err(error)
        }
    }
}

/// What the bytes mean is what the text does.
fn means(oid: u32, text: &str, encoded: &[u8]) {
    let trimmed = text.trim_matches(|char: char| char.is_ascii_whitespace() || char == '\u{b}');
    let number = || encoded.iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    match oid {
        BOOL => {
            let is_true = "true".starts_with(&trimmed.to_ascii_lowercase())
                || "yes".starts_with(&trimmed.to_ascii_lowercase())
                || trimmed.eq_ignore_ascii_case("on")
                || trimmed == "1";
            assert_eq!(encoded, [u8::from(is_true)], "{text:?}");
        }
        INT2 => assert_eq!(trimmed.parse::<i16>().ok(), Some(number() as i16), "{text:?}"),
        INT4 => assert_eq!(trimmed.parse::<i32>().ok(), Some(number() as i32), "{text:?}"),
        INT8 => assert_eq!(trimmed.parse::<i64>().ok(), Some(number() as i64), "{text:?}"),
        FLOAT4 => {
            let (found, expected) = (f32::from_bits(number() as u32), trimmed.parse::<f32>().expect("a number"));
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{text:?}");
        }
        FLOAT8 => {
            let (found, expected) = (f64::from_bits(number()), trimmed.parse::<f64>().expect("a number"));
            assert!(found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan(), "{text:?}");
        }
        TEXT | JSON => assert_eq!(encoded, text.as_bytes()),
        JSONB => assert_eq!(encoded, [b"\x01", text.as_bytes()].concat()),
        BYTEA => {
            if let Some(digits) = text.strip_prefix("\\x") {
                let digits: String = digits.chars().filter(|char| !char.is_ascii_whitespace()).collect();
                assert_eq!(hex(encoded), digits.to_ascii_lowercase());
            }
        }
        UUID => {
            let digits: String = trimmed.chars().filter(char::is_ascii_hexdigit).collect();
            assert_eq!(hex(encoded), digits.to_ascii_lowercase(), "{text:?}");
        }
        DATE => {
            if let Ok(date) = trimmed.parse::<jiff::civil::Date>() {
                let days = date.since(jiff::civil::date(2000, 1, 1)).expect("a span").get_days();
                assert_eq!(number() as i32, days, "{text:?}");
            }
        }
        _ => {}
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
