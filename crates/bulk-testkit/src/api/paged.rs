use serde_json::{Value, json};

use super::{Answer, Asked};

/// Answers `/next`, `/cursor` and `/number` with these items in pages of so many: `/next` names the following page in
/// `next` and in the header `Link`, `/cursor` gives a `cursor` for the parameter of that name, and `/number` takes the
/// number of the `page`, from 1, and tells the last one.
pub fn paged(items: Vec<Value>, size: usize) -> impl Fn(&Asked) -> Answer + Send + Sync + 'static {
    let size = size.max(1);
    move |asked| {
        let number = |name| asked.param(name).and_then(|text| text.parse::<usize>().ok());
        let page = |number: usize| items.iter().skip(number * size).take(size).collect::<Vec<_>>();
        let pages = items.len().div_ceil(size).max(1);
        match asked.path.as_str() {
            "/next" => {
                let at = number("at").unwrap_or(0);
                let next = (at + 1 < pages).then(|| format!("/next?at={}", at + 1));
                let answer = Answer::json(json!({"items": page(at), "next": next}));
                match next {
                    Some(next) => answer.header("link", &format!("<{next}>; rel=\"next\", </next>; rel=\"first\"")),
                    None => answer,
                }
            }
            "/cursor" => {
                let at = number("cursor").unwrap_or(0);
                let cursor = (at + 1 < pages).then(|| (at + 1).to_string());
                Answer::json(json!({"items": page(at), "cursor": cursor}))
            }
            "/number" => match number("page").unwrap_or(1) {
                0 => Answer::error(400, "pages are counted from 1"),
                at => Answer::json(json!({"items": page(at - 1), "this_page": at, "last_page": pages})),
            },
            _ => Answer::error(404, "there is no such list"),
        }
    }
}
