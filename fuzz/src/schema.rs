//! SQL scripts: their statements are stretches of them, in their order, and each is one by itself.

use bulk_pg::{Schema, StatementKind, split_statements};

/// See the module.
pub fn target(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let script = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let Ok(statements) = split_statements(&text) else {
        assert!(Schema::parse(&text).is_err());
        return;
    };
    let mut end = 0;
    for statement in &statements {
        assert!(statement.offset >= end);
        end = statement.offset + statement.text.len();
        assert_eq!(script.get(statement.offset..end), Some(statement.text));
        let line = 1 + script[..statement.offset].bytes().filter(|byte| *byte == b'\n').count();
        assert_eq!(statement.line, line);
        // A byte order mark is passed over at the beginning of a script alone.
        if statement.kind != StatementKind::Sql || statement.text.starts_with('\u{feff}') {
            continue;
        }
        // One behind which its rows follow is none without them.
        if let Ok(again) = split_statements(statement.text) {
            let again: Vec<_> = again.iter().map(|statement| (statement.kind, statement.text)).collect();
            assert_eq!(again, [(StatementKind::Sql, statement.text)]);
        }
    }
    if let Ok(schema) = Schema::parse(&text) {
        for foreign_key in schema.foreign_keys() {
            let _ = (foreign_key.not_valid_sql(), foreign_key.validate_sql());
        }
        let _ = (schema.missing_tables(), schema.missing_functions());
        let _ = schema.plan();
        for table in schema.tables() {
            assert!(schema.table(&table.name).is_some());
        }
    }
}
