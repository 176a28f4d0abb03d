//! Arrays in many spellings.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::numbers::integer;
use crate::reference::{Reference, SPELLINGS, any_of, edited, one_of};
use crate::texts::json;

/// The literal of an array with these elements, in up to three dimensions.
fn array(element: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = String> {
    let quoted = (element, 0..10, any_of(" \n", 0..2)).prop_map(|(text, style, space)| match style {
        0 => one(["NULL", "null", "Null"], text.len()).to_owned(),
        1 => format!("{space}{text}{space}"),
        2 => format!("{space}\"{text}\" "),
        _ => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
    });
    let item = quoted.boxed();
    (0..4_usize, 1..4_usize, 1..4_usize).prop_flat_map(move |(depth, rows, columns)| {
        let items = vec(item.clone(), columns * rows * 2);
        items.prop_map(move |items| {
            let row = |items: &[String]| format!("{{{}}}", items.join(","));
            let rows: Vec<String> = items.chunks(columns).map(row).collect();
            match depth {
                0 => "{}".to_owned(),
                1 => row(&items),
                2 => row(&rows),
                _ => row(&rows.chunks(rows.len() / 2).map(row).collect::<Vec<_>>()),
            }
        })
    })
}

fn one<const N: usize>(words: [&'static str; N], index: usize) -> &'static str {
    words[index % N]
}

#[tokio::test]
async fn arrays() {
    let reference = Reference::new().await;
    let odd = || {
        one_of(&[
            "",
            "{",
            "}",
            "{}}",
            "[1:2]={1,2}",
            "{{}}",
            "{1,}",
            "{,}",
            "{1,{2}}",
            "{{1},2}",
            "{{1},{2,3}}",
            "{{{{{{1}}}}}}",
            "{{{{{{{1}}}}}}}",
            " { } ",
            "{\"\"}",
            "{a\"b\"}",
            "{\"a\"b}",
            "{a\\b}",
            "{1} x",
            "1,2",
            "{1 2}",
            "{NULL,{1}}",
            "{\"NULL\",null}",
            "{{1},{NULL}}",
            "{abc}",
        ])
    };
    let alphabet = "{}\", \\1aN";
    let literal = |elements: BoxedStrategy<String>| prop_oneof![30 => edited(array(elements), alphabet), 1 => odd(), 1 => any_of(alphabet, 0..8)];
    for (type_name, elements, understood) in [
        ("text[]", any_of("ab \"\\',{}é\n", 0..8).boxed(), 100),
        ("integer[]", any::<i32>().prop_map(|number| number.to_string()).boxed(), 200),
        ("bigint[]", integer().boxed(), 20),
        ("numeric(5, 2)[]", any_of("0123456789.", 1..6).boxed(), 20),
        ("boolean[]", one_of(&["t", "f", "true", "no"]).boxed(), 200),
        ("timestamptz[]", Just("2020-06-25 17:13:53.973335+00".to_owned()).boxed(), 200),
        ("date[]", one_of(&["2020-06-25", "infinity", "0044-03-15 BC"]).boxed(), 200),
        ("uuid[]", any::<u128>().prop_map(|number| format!("{number:032x}")).boxed(), 200),
        ("double precision[]", any::<f64>().prop_map(|number| number.to_string()).boxed(), 200),
        ("bytea[]", one_of(&["\\x00ff", "abc", "\\\\"]).boxed(), 100),
        ("jsonb[]", json().prop_filter("not blank", |text| !text.trim().is_empty()).boxed(), 100),
    ] {
        // What looks like a document and is none is for the server to refuse.
        let seen = if type_name == "jsonb[]" {
            let quoted = |text: String| format!("{{\"{}\"}}", text.replace('\\', "\\\\").replace('"', "\\\""));
            reference.spellings(type_name, SPELLINGS, elements.prop_map(quoted)).await
        } else {
            reference.spellings(type_name, SPELLINGS, literal(elements)).await
        };
        assert!(seen.understood > understood, "{type_name}: {seen:?}");
    }
}
