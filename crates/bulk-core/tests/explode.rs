//! Rows out of JSON: what becomes one, with which values, and that no value is changed on the way.

use bulk_core::{Explode, InvalidExplode, RowFaultKind, TooDeep};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

fn rows(explode: &Explode, input: &Value, response: &Value) -> Vec<Value> {
    explode.rows(input, response).unwrap().map(|row| row.to_json()).collect()
}

#[test]
fn columns_come_from_all_around_the_element() {
    let explode = Explode::new(
        ["$.a[*]", "$.b.*", "$"],
        [
            ("element", "$.n"),
            ("own", "$3.n"),
            ("outer", "$1.id"),
            ("place", "key1"),
            ("name", "key2"),
            ("all", "$2"),
            ("response", "response.page"),
            ("input", "input['odd name'].x"),
            ("many", "[$1.b.*.n]"),
        ],
    )
    .unwrap();
    let response = json!({"page": 7, "a": [{"id": 1, "b": {"x": {"n": 10}, "y": {"n": 11}}}, {"id": 2}, {"id": 3, "b": {"": {"n": 12}}}]});
    let row = |n: u64, id: u64, place: u64, name: &str, many: Value| {
        json!({"element": n, "own": n, "outer": id, "place": place, "name": name, "all": {"n": n}, "response": 7,
               "input": "i", "many": many})
    };
    assert_eq!(
        rows(&explode, &json!({"odd name": {"x": "i"}}), &response),
        [row(10, 1, 0, "x", json!([10, 11])), row(11, 1, 0, "y", json!([10, 11])), row(12, 3, 2, "", json!([12]))]
    );
    let names: Vec<_> = explode.names().collect();
    assert_eq!(names, ["element", "own", "outer", "place", "name", "all", "response", "input", "many"]);
}

#[test]
fn without_a_path_the_response_is_the_row() {
    let explode = Explode::new([""; 0], [("all", "$"), ("same", "response"), ("in", "input")]).unwrap();
    assert_eq!(rows(&explode, &json!(1), &json!([2])), [json!({"all": [2], "same": [2], "in": 1})]);
    let none = Explode::new(["$[*]"], [("a", "$")]).unwrap();
    assert_eq!(rows(&none, &json!(1), &json!({})), [] as [Value; 0]);
}

#[test]
fn what_is_missing_is_told_from_null_and_from_what_is_empty() {
    let explode = Explode::new(["$[*]"], [("v", "$.v"), ("boxed", "[$.v]")]).unwrap();
    let response = json!([{}, {"v": null}, {"v": ""}, {"v": []}, {"v": {}}, {"v": false}, {"v": 0}]);
    assert_eq!(
        rows(&explode, &json!({}), &response),
        [
            json!({"boxed": []}),
            json!({"v": null, "boxed": [null]}),
            json!({"v": "", "boxed": [""]}),
            json!({"v": [], "boxed": [[]]}),
            json!({"v": {}, "boxed": [{}]}),
            json!({"v": false, "boxed": [false]}),
            json!({"v": 0, "boxed": [0]}),
        ]
    );
    let explode = explode.require("v").unwrap();
    let faults: Vec<_> = explode.rows(&json!({}), &response).unwrap().map(|row| row.fault().cloned()).collect();
    let fault = faults[0].as_ref().unwrap();
    assert_eq!((fault.column.as_str(), fault.kind), ("v", RowFaultKind::Missing));
    assert_eq!(fault.to_string(), "nothing is found for the column v, which is required");
    assert_eq!(faults[1..], [None, None, None, None, None, None]);
}

#[test]
fn several_values_for_one_are_a_fault_of_the_row_alone() {
    let explode = Explode::new(["$[*]"], [("id", "$.id"), ("v", "$.v[*]")]).unwrap();
    let response = json!([{"id": 1, "v": [5, 6, 7]}, {"id": 2, "v": [8]}]);
    let input = json!(null);
    let found: Vec<_> = explode.rows(&input, &response).unwrap().collect();
    let fault = found[0].fault().unwrap();
    assert_eq!(fault.kind, RowFaultKind::Several(3));
    assert_eq!(fault.to_string(), "3 values are found for the column v, which takes one");
    assert_eq!(found[0].to_json(), json!({"id": 1}));
    assert_eq!((found[1].fault(), found[1].to_json()), (None, json!({"id": 2, "v": 8})));
}

#[test]
fn numbers_keep_their_text() {
    let explode = Explode::new(["$[*]"], [("n", "$")]).unwrap();
    for text in [
        "0.10",
        "1.0",
        "-0",
        "-0.0",
        "9007199254740993",
        "18446744073709551616",
        "123456789012345678901234567890",
        "0.12345678901234567890123456789",
        "2305843009264369700",
    ] {
        let response: Value = serde_json::from_str(&format!("[{text}, {{\"in\": [{text}]}}]")).unwrap();
        let input = Value::Null;
        let found: Vec<_> = explode
            .rows(&input, &response)
            .unwrap()
            .map(|row| row.values().next().unwrap().unwrap().to_string())
            .collect();
        assert_eq!(found, [text.to_owned(), format!("{{\"in\":[{text}]}}")]);
    }
    let huge: Value = serde_json::from_str("[1e400]").unwrap();
    assert_eq!(rows(&explode, &Value::Null, &huge)[0]["n"].to_string().replace('+', ""), "1e400");
}

#[test]
fn texts_are_as_they_are() {
    let text = "tab\t nl\n cr\r \\ \\N \\. \"q\" 'a' \u{0} \u{1F600} é \u{FEFF}";
    let explode = Explode::new(["$.*"], [("key", "key"), ("v", "$")]).unwrap();
    let mut response = Map::new();
    response.insert(text.to_owned(), text.into());
    assert_eq!(rows(&explode, &Value::Null, &Value::Object(response)), [json!({"key": text, "v": text})]);
}

fn nested(depth: usize) -> Value {
    // Not by json!, which goes through all of a value.
    (1..depth).fold(json!([]), |value, place| match place % 2 {
        0 => Value::Array(vec![value]),
        _ => Value::Object(Map::from_iter([("a".to_owned(), value)])),
    })
}

/// Dropping it all at once takes a stack as deep as it is.
fn take_apart(mut value: Value) {
    loop {
        value = match value {
            Value::Array(mut items) if !items.is_empty() => items.remove(0),
            Value::Object(members) => match members.into_iter().next() {
                Some((_, value)) => value,
                None => return,
            },
            _ => return,
        };
    }
}

#[test]
fn what_is_nested_too_deep_is_refused() {
    let explode = Explode::new(["$..a"], [("v", "$")]).unwrap();
    let (most, more, far_more) = (nested(Explode::MAX_DEPTH), nested(Explode::MAX_DEPTH + 1), nested(1_000_000));
    let depth = Explode::MAX_DEPTH / 2;
    let is_parsed = |value: &Value| serde_json::from_str::<Value>(&value.to_string()).is_ok();
    assert_eq!((is_parsed(&most), is_parsed(&more)), (true, false));
    assert_eq!(rows(&explode, &most, &most).len(), depth);
    let message = |error: TooDeep| error.to_string();
    assert_eq!(
        explode.rows(&Value::Null, &more).map_err(message).unwrap_err(),
        "the response is nested deeper than 127"
    );
    assert_eq!(
        explode.rows(&far_more, &Value::Null).map_err(message).unwrap_err(),
        "the input record is nested deeper than 127"
    );
    take_apart(far_more);
}

#[test]
fn what_cannot_be_used_is_named() {
    let error = |each: &[&str], columns: &[(&str, &str)]| {
        Explode::new(each, columns.iter().map(|(name, source)| (*name, *source))).unwrap_err().to_string()
    };
    assert!(error(&["a.b"], &[]).starts_with("\"a.b\" is no path to elements: "));
    assert_eq!(error(&["$"], &[("a", "$"), ("a", "key")]), "the column a is there twice");
    for (source, what) in [
        ("", "it begins with none of $, $1, response, input, key and key1"),
        ("a.b", "it begins with none of $, $1, response, input, key and key1"),
        ("[]", "it begins with none of $, $1, response, input, key and key1"),
        ("$2.a", "only 1 path leads to elements"),
        ("$01.a", "\"01\" is no number of a path to elements"),
        ("$x.a", "\"x\" is no number of a path to elements"),
        ("key2", "only 1 path leads to elements"),
        ("keys", "\"s\" is no number of a path to elements"),
        ("key.a", "a key has no parts, and is one"),
        ("[key]", "a key has no parts, and is one"),
    ] {
        assert_eq!(error(&["$[*]"], &[("c", source)]), format!("{source:?} is no source for the column c: {what}"));
    }
    assert_eq!(
        error(&[], &[("c", "key")]),
        "\"key\" is no source for the column c: there is no path to elements, so the response is the element, and has no key"
    );
    assert!(matches!(Explode::new(["$"], [("c", "$.")]), Err(InvalidExplode::Source { .. })));
    let error = Explode::new(["$"], [("a", "$")]).unwrap().require("b").unwrap_err();
    assert_eq!(error.to_string(), "the column b is to be required, and is not there");
}

/// A part of a path, and what it finds by the plainest of means.
#[derive(Clone, Debug)]
enum Part {
    Name(String),
    Place(usize),
    All,
}

impl Part {
    fn text(&self) -> String {
        match self {
            Self::Name(name) => format!("[{}]", json!(name)),
            Self::Place(place) => format!("[{place}]"),
            Self::All => "[*]".to_owned(),
        }
    }

    fn find<'a>(&self, value: &'a Value) -> Vec<(Value, &'a Value)> {
        match (self, value) {
            (Self::Name(name), Value::Object(members)) => {
                members.get(name).map(|value| (json!(name), value)).into_iter().collect()
            }
            (Self::Place(place), Value::Array(items)) => {
                items.get(*place).map(|value| (json!(place), value)).into_iter().collect()
            }
            (Self::All, Value::Object(members)) => members.iter().map(|(name, value)| (json!(name), value)).collect(),
            (Self::All, Value::Array(items)) => {
                items.iter().enumerate().map(|(place, value)| (json!(place), value)).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let part = prop_oneof![
        prop_oneof![Just("a"), Just("b"), Just("é\"\\")].prop_map(|name| Part::Name(name.to_owned())),
        (0_usize..3).prop_map(Part::Place),
        Just(Part::All),
        Just(Part::All),
    ];
    prop::collection::vec(part, 1..3)
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?".prop_map(|text| serde_json::from_str(&text).unwrap()),
        any::<String>().prop_map(Value::from),
    ];
    let name = prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("é\"\\".to_owned()), any::<String>()];
    leaf.prop_recursive(5, 64, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..4).prop_map(|members| members.into_iter().collect()),
        ]
    })
}

/// All that parts find one after the other, with the last key.
fn find<'a>(parts: &[Part], value: &'a Value) -> Vec<(Value, &'a Value)> {
    parts
        .iter()
        .fold(vec![(Value::Null, value)], |found, part| found.iter().flat_map(|(_, value)| part.find(value)).collect())
}

proptest! {
    #[test]
    fn rows_are_what_plain_loops_find(
        each in prop::collection::vec(parts(), 0..3),
        column in parts(),
        input in document(),
        response in document(),
    ) {
        let path = |parts: &Vec<Part>| format!("${}", parts.iter().map(Part::text).collect::<String>());
        let tail = &path(&column)[1..];
        let mut columns = vec![
            ("all".to_owned(), "$".to_owned()),
            ("many".to_owned(), format!("[${tail}]")),
            ("of_input".to_owned(), format!("[input{tail}]")),
            ("of_response".to_owned(), format!("[response{tail}]")),
            ("one".to_owned(), format!("${tail}")),
        ];
        if !each.is_empty() {
            columns.push(("key".to_owned(), "key".to_owned()));
            columns.push(("outer".to_owned(), "$1".to_owned()));
        }
        let explode = Explode::new(each.iter().map(path), columns).unwrap();

        let mut expected = Vec::new();
        let mut elements = vec![(Vec::new(), &response)];
        for parts in &each {
            elements = elements.iter().flat_map(|(chain, value)| {
                find(parts, value).into_iter().map(|(key, value)| {
                    let mut chain: Vec<(Value, &Value)> = chain.clone();
                    chain.push((key, value));
                    (chain, value)
                }).collect::<Vec<_>>()
            }).collect();
        }
        let values = |value| Value::from(find(&column, value).into_iter().map(|(_, value)| value.clone()).collect::<Vec<_>>());
        for (chain, element) in elements {
            let mut row = json!({
                "all": element, "many": values(element), "of_input": values(&input), "of_response": values(&response),
            });
            let found = find(&column, element);
            if let [(_, one)] = found.as_slice() {
                row["one"] = (*one).clone();
            }
            if let (Some((_, outer)), Some((key, _))) = (chain.first(), chain.last()) {
                row["outer"] = (*outer).clone();
                row["key"] = key.clone();
            }
            expected.push((row, (found.len() > 1).then_some(RowFaultKind::Several(found.len()))));
        }
        let found: Vec<_> = explode.rows(&input, &response).unwrap()
            .map(|row| (row.to_json(), row.fault().map(|fault| fault.kind))).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn no_document_and_no_path_is_too_much(
        each in "\\$(\\.\\.|\\.)?[a*\\[\\]'?@0-9:,<>=! ]{0,8}",
        source in "(\\$|input|response|key|\\[\\$)[a.*\\[\\]'?@0-9:,<>=! ]{0,8}",
        response in document(),
    ) {
        let Ok(explode) = Explode::new([each], [("v", source)]) else { return Ok(()) };
        for row in explode.rows(&response, &response).unwrap() {
            prop_assert_eq!(row.values().len(), 1);
        }
    }
}
