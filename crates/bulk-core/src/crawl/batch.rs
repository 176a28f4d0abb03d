use std::collections::HashMap;

use serde_json::Value;
use serde_json_path::JsonPath;

use super::rule::{Hide, json_path};
use super::template::{Several, Text, at};
use super::{Rule, SpecError};

use crate::counted::counted;

/// How several records are requested at once, and which part of the answer is whose.
///
/// The records of one call come one after another, and differ in one field of the [template](super::RequestTemplate), which
/// stands there as `1,2,3`, or [repeated](Self::repeat). Where another field that the template has a place for changes, a new
/// call begins.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Batch {
    /// Records of a call, at most. 0 counts as 1.
    pub size: usize,
    /// What each record's part of the answer says if it is a success. Default nothing.
    pub rules: Vec<Rule>,
    /// Whether a record of which the answer has nothing is one without any page, such as one that was deleted since somebody
    /// listed it. Default no: it is a failure.
    pub may_miss: bool,
    pub(super) field: String,
    pub(super) several: Several,
    split: Split,
}

#[derive(Clone, Debug)]
enum Split {
    ById { elements: JsonPath, id: JsonPath, of_record: Text },
    ByKey { object: JsonPath, of_record: Text },
    InOrder { elements: JsonPath },
}

impl Batch {
    /// Up to `size` records that differ in `field`. Each record has those of the `elements` of the answer (a JSONPath such as
    /// `$[*]`) at whose path `id` stands what `of_record` makes of the record: a template such as `{id}` or
    /// `/objects/{id}`, without any encoding.
    ///
    /// # Errors
    ///
    /// If one of them is no JSONPath or template.
    pub fn by_id(size: usize, field: &str, elements: &str, id: &str, of_record: &str) -> Result<Self, SpecError> {
        let (elements, id, of_record) = (json_path(elements)?, json_path(id)?, Text::parse(of_record)?);
        Ok(Self::new(size, field, Split::ById { elements, id, of_record }))
    }

    /// Likewise where the answer has an object (a JSONPath such as `$.items`) whose keys are the records'.
    ///
    /// # Errors
    ///
    /// If one of them is no JSONPath or template.
    pub fn by_key(size: usize, field: &str, object: &str, of_record: &str) -> Result<Self, SpecError> {
        let (object, of_record) = (json_path(object)?, Text::parse(of_record)?);
        Ok(Self::new(size, field, Split::ByKey { object, of_record }))
    }

    /// Likewise where the answer has one element for each record, in their order. An answer with more or fewer elements is
    /// none to anybody's.
    ///
    /// # Errors
    ///
    /// If it is no JSONPath.
    pub fn in_order(size: usize, field: &str, elements: &str) -> Result<Self, SpecError> {
        Ok(Self::new(size, field, Split::InOrder { elements: json_path(elements)? }))
    }

    fn new(size: usize, field: &str, split: Split) -> Self {
        Self { size, rules: Vec::new(), may_miss: false, field: field.to_owned(), several: Several::Joined, split }
    }

    /// The same with the pair of the query in which the field stands once for each record, as in `id[]=1&id[]=2`.
    #[must_use]
    pub fn repeat(mut self) -> Self {
        self.several = Several::Repeated;
        self
    }

    /// The fields of records by which it is told what is whose, each once: `id` for `/items/{id}`.
    pub fn fields(&self) -> Vec<&str> {
        let mut fields: Vec<&str> = match &self.split {
            Split::ById { of_record, .. } | Split::ByKey { of_record, .. } => of_record.fields().collect(),
            Split::InOrder { .. } => Vec::new(),
        };
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// Whether both records can be in one call.
    pub(super) fn is_alike(&self, fields: &[String], one: &Value, other: &Value) -> bool {
        fields.iter().filter(|field| **field != self.field).all(|field| at(one, field) == at(other, field))
    }

    /// What is whose: for each record its elements, or why it has none.
    ///
    /// # Errors
    ///
    /// Why nobody can tell.
    pub(super) fn split(&self, records: &[&Value], answer: &Value, hide: Hide<'_>) -> Result<Vec<Part>, String> {
        let found: Vec<Result<Vec<Value>, String>> = match &self.split {
            Split::InOrder { elements } => {
                let elements: Vec<Value> = elements.query(answer).into_iter().cloned().collect();
                if elements.len() != records.len() {
                    let elements = counted(elements.len(), "element", "elements");
                    return Err(format!("it has {elements} for {}", counted(records.len(), "record", "records")));
                }
                elements.into_iter().map(|element| Ok(vec![element])).collect()
            }
            Split::ById { elements, id, of_record } => {
                let mut by_id: HashMap<String, Vec<Value>> = HashMap::new();
                for element in elements.query(answer) {
                    if let Some(id) = id.query(element).first().and_then(text) {
                        by_id.entry(id).or_default().push(element.clone());
                    }
                }
                records
                    .iter()
                    .map(|record| {
                        let id = of_record.of_record(record)?;
                        // Two records may have the same one.
                        by_id.get(&id).cloned().ok_or_else(|| format!("it has nothing for {id}"))
                    })
                    .collect()
            }
            Split::ByKey { object, of_record } => {
                let object = object.query(answer).first().and_then(|object| object.as_object());
                records
                    .iter()
                    .map(|record| {
                        let key = of_record.of_record(record)?;
                        let value = object.and_then(|object| object.get(&key)).cloned();
                        value.map(|value| vec![value]).ok_or_else(|| format!("it has nothing for {key}"))
                    })
                    .collect()
            }
        };
        let judged = found.into_iter().map(|found| {
            let elements = match found {
                Ok(elements) => elements,
                Err(what) => return Part::Missing(hide(&what)),
            };
            let broken = elements.iter().find_map(|element| {
                self.rules.iter().find(|rule| !rule.holds(element)).map(|rule| rule.broken_by(element, hide))
            });
            broken.map_or(Part::Found(elements), Part::Broken)
        });
        Ok(judged.collect())
    }
}

/// A record's part of the answer.
#[derive(Debug, PartialEq)]
pub(super) enum Part {
    Found(Vec<Value>),
    /// It has none, and why.
    Missing(String),
    /// It breaks a rule, and which.
    Broken(String),
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_split_by_id_key_or_order() {
        let records = [json!({"id": 1}), json!({"id": 2}), json!({"id": 3})];
        let records: Vec<&Value> = records.iter().collect();

        let mut batch = Batch::by_id(3, "id", "$.results[*]", "$.uri", "/x/{id}").unwrap();
        batch.rules = vec!["$.ok == true".parse().unwrap()];
        let answer = json!({"results": [
            {"uri": "/x/3", "ok": true}, {"uri": "/x/1", "ok": false}, {"ok": true}, {"uri": "/x/3", "ok": true, "n": 2},
        ]});
        let found = batch.split(&records, &answer, &str::to_owned).unwrap();
        let third = vec![json!({"uri": "/x/3", "ok": true}), json!({"uri": "/x/3", "ok": true, "n": 2})];
        assert_eq!(
            found,
            [
                Part::Broken("$.ok == true does not hold: there is false".to_owned()),
                Part::Missing("it has nothing for /x/2".to_owned()),
                Part::Found(third)
            ]
        );

        let batch = Batch::by_key(3, "id", "$.items", "{id}").unwrap();
        let split = |batch: &Batch, answer: Value| batch.split(&records, &answer, &str::to_owned);
        let one = |value: Value| Part::Found(vec![value]);
        let found = split(&batch, json!({"items": {"1": "a", "3": null}})).unwrap();
        let missing = Part::Missing("it has nothing for 2".to_owned());
        assert_eq!(found, [one(json!("a")), missing, one(json!(null))]);
        assert!(split(&batch, json!([])).unwrap().iter().all(|part| matches!(part, Part::Missing(_))));

        let batch = Batch::in_order(3, "id", "$[*]").unwrap();
        assert_eq!(split(&batch, json!([1, 2, 3])), Ok(vec![one(json!(1)), one(json!(2)), one(json!(3))]));
        assert_eq!(split(&batch, json!([1, 2])), Err("it has 2 elements for 3 records".to_owned()));
    }
}
