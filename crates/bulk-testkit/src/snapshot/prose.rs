//! Invented legal prose: clauses with slots, filled from lists of words by rank after Zipf's law.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::rng::Rng;

/// The lists of `words.txt` and the forms made of them.
pub(super) static PROSE: LazyLock<Prose> = LazyLock::new(|| Prose::parse(include_str!("words.txt")));

pub(super) struct Prose {
    pub(super) surnames: Vec<String>,
    first_names: Vec<String>,
    pub(super) cities: Vec<String>,
    pub(super) states: Vec<String>,
    firms: Vec<String>,
    trades: Vec<String>,
    nouns: Vec<String>,
    plurals: Vec<String>,
    adjectives: Vec<String>,
    adverbs: Vec<String>,
    verbs: Vec<String>,
    past: Vec<String>,
    third: Vec<String>,
    participles: Vec<String>,
    clauses: Vec<Vec<Token>>,
    joints: Vec<String>,
}

#[derive(Clone, Debug)]
enum Token {
    Literal(String),
    /// The letter after the percent sign.
    Slot(u8),
}

/// A reporter of decisions: its abbreviation, and the number CourtListener gives to its kind.
pub(super) const REPORTERS: &[(&str, u64)] = &[
    ("F.2d", 1),
    ("U.S.", 1),
    ("F. Supp.", 1),
    ("F.3d", 1),
    ("S. Ct.", 1),
    ("S.W.2d", 3),
    ("N.E.2d", 3),
    ("So. 2d", 3),
    ("P.2d", 3),
    ("A.2d", 3),
    ("N.W.2d", 3),
    ("S.E.2d", 3),
    ("F. Supp. 2d", 1),
    ("L. Ed. 2d", 4),
    ("Cal. App. 3d", 2),
    ("Ill. App. 3d", 2),
    ("A.D.2d", 2),
    ("Mass.", 2),
    ("U.S. LEXIS", 6),
    ("WL", 7),
    ("F.4th", 1),
    ("S.W.3d", 3),
    ("P.3d", 3),
    ("B.R.", 1),
    ("F.R.D.", 1),
    ("T.C.", 4),
    ("Ct. Cl.", 4),
    ("Wheat.", 5),
    ("Cranch", 5),
    ("How.", 5),
];

const COURTS_CITED: &[&str] = &[
    "9th Cir.",
    "2d Cir.",
    "5th Cir.",
    "7th Cir.",
    "3d Cir.",
    "8th Cir.",
    "6th Cir.",
    "4th Cir.",
    "1st Cir.",
    "11th Cir.",
    "10th Cir.",
    "D.C. Cir.",
    "Fed. Cir.",
    "S.D.N.Y.",
    "N.D. Cal.",
    "E.D. Pa.",
    "D. Mass.",
    "N.D. Ill.",
];

const MONTHS: &[&str] = &[
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A text in two forms: as it was written, and with its citations linked.
#[derive(Debug, Default)]
pub(super) struct Text {
    pub(super) plain: String,
    pub(super) linked: String,
}

impl Text {
    fn put(&mut self, text: &str) {
        self.plain.push_str(text);
        self.linked.push_str(text);
    }

    /// Adds a word, and turns an "a" before it into "an" where it begins with a vowel.
    fn word(&mut self, word: &str) {
        if begins_with_vowel(word) && ends_in_article(&self.plain) {
            for form in [&mut self.plain, &mut self.linked] {
                form.pop();
                form.push_str("n ");
            }
        }
        self.put(word);
    }

    fn clear(&mut self) {
        self.plain.clear();
        self.linked.clear();
    }
}

impl Prose {
    /// Reads the lists. They are compiled in, so a fault in them is a fault of this crate and panics.
    fn parse(text: &'static str) -> Self {
        let mut lists: HashMap<&str, Vec<String>> = HashMap::new();
        let mut name = "";
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.strip_prefix('@') {
                Some(next) => name = next,
                None => {
                    let list = lists.entry(name).or_default();
                    match name {
                        "clauses" | "joints" => list.push(line.to_owned()),
                        _ => list.extend(line.split_whitespace().map(|word| word.replace('_', " "))),
                    }
                }
            }
        }
        let mut take = |name: &str| lists.remove(name).expect("words.txt has every list named here");
        let (nouns, verbs) = (take("nouns"), take("verbs"));
        Self {
            surnames: take("surnames"),
            first_names: take("first"),
            cities: take("cities"),
            states: take("states"),
            firms: take("firms"),
            trades: take("trades"),
            plurals: nouns.iter().map(|noun| with_s(noun)).collect(),
            past: verbs.iter().map(|verb| past(verb)).collect(),
            third: verbs.iter().map(|verb| with_s(verb)).collect(),
            participles: verbs.iter().map(|verb| participle(verb)).collect(),
            adjectives: take("adjectives"),
            adverbs: take("adverbs"),
            clauses: take("clauses").iter().map(|clause| tokens(clause)).collect(),
            joints: take("joints"),
            nouns,
            verbs,
        }
    }

    /// A word after its rank, or in one case of two any word: so bzip2 shrinks opinions as it shrinks real ones.
    fn word<'a>(list: &'a [String], rng: &mut Rng) -> &'a str {
        let any = rng.below(2 * list.len() as u64) as usize;
        if any < list.len() { &list[any] } else { &list[rng.zipf(list.len())] }
    }

    pub(super) fn surname(&self, rng: &mut Rng) -> &str {
        Self::word(&self.surnames, rng)
    }

    pub(super) fn first_name(&self, rng: &mut Rng) -> &str {
        Self::word(&self.first_names, rng)
    }

    pub(super) fn city(&self, rng: &mut Rng) -> &str {
        Self::word(&self.cities, rng)
    }

    pub(super) fn state(&self, rng: &mut Rng) -> &str {
        &self.states[rng.below(self.states.len() as u64) as usize]
    }

    pub(super) fn person(&self, rng: &mut Rng) -> String {
        let first = self.first_name(rng);
        format!("{first} {}. {}", letter(rng), self.surname(rng))
    }

    pub(super) fn company(&self, rng: &mut Rng) -> String {
        let (firm, trade) = (Self::word(&self.firms, rng), Self::word(&self.trades, rng));
        format!("{firm} {trade} {}", rng.of(&["Co.", "Corp.", "Inc.", "LLC", "Co., Inc.", "Ltd.", "Ass’n", "N.A."]))
    }

    /// One side of a case.
    pub(super) fn party(&self, rng: &mut Rng) -> String {
        match rng.below(10) {
            0..=4 => self.surname(rng).to_owned(),
            5..=7 => self.company(rng),
            8 => rng
                .of(&["United States", "State", "Commonwealth", "People", "Commissioner of Social Security"])
                .to_owned(),
            _ => format!("City of {}", self.city(rng)),
        }
    }

    /// Volume, reporter, page and kind of reporter.
    pub(super) fn citation(rng: &mut Rng) -> (u64, &'static str, u64, u64) {
        let (reporter, kind) = REPORTERS[rng.zipf(REPORTERS.len())];
        (rng.range(1..999), reporter, rng.range(1..1500), kind)
    }

    /// Appends a sentence.
    pub(super) fn sentence(&self, rng: &mut Rng, out: &mut String) {
        let mut text = Text { plain: std::mem::take(out), linked: String::new() };
        self.sentence_of(rng, &mut text, &mut |_| None, false);
        *out = text.plain;
    }

    /// Appends sentences until `out` has grown by `bytes` or more.
    pub(super) fn passage(&self, rng: &mut Rng, bytes: usize, out: &mut String) {
        let end = out.len() + bytes;
        while out.len() < end {
            if out.ends_with('.') {
                out.push(' ');
            }
            self.sentence(rng, out);
        }
    }

    fn sentence_of(&self, rng: &mut Rng, text: &mut Text, link: &mut dyn FnMut(&mut Rng) -> Option<u64>, html: bool) {
        let mut more = rng.below(8);
        self.clause(rng, text, link, html, true);
        while more < 3 {
            text.put(&self.joints[rng.zipf(self.joints.len())]);
            text.put(" ");
            self.clause(rng, text, link, html, false);
            more += 2;
        }
        text.put(".");
    }

    fn clause(
        &self,
        rng: &mut Rng,
        text: &mut Text,
        link: &mut dyn FnMut(&mut Rng) -> Option<u64>,
        html: bool,
        opens: bool,
    ) {
        let clause = &self.clauses[rng.below(self.clauses.len() as u64) as usize];
        for (index, token) in clause.iter().enumerate() {
            match token {
                Token::Literal(literal) if index == 0 && !opens => {
                    let mut chars = literal.chars();
                    let first = chars.next().expect("no literal is empty");
                    text.put(first.to_lowercase().next().expect("a letter has a lower case").encode_utf8(&mut [0; 4]));
                    text.put(chars.as_str());
                }
                Token::Literal(literal) => text.put(literal),
                Token::Slot(b'n') => text.word(Self::word(&self.nouns, rng)),
                Token::Slot(b'p') => text.word(Self::word(&self.plurals, rng)),
                Token::Slot(b'a') => text.word(Self::word(&self.adjectives, rng)),
                Token::Slot(b'l') => text.word(Self::word(&self.adverbs, rng)),
                Token::Slot(b'v') => text.word(Self::word(&self.verbs, rng)),
                Token::Slot(b'd') => text.word(Self::word(&self.past, rng)),
                Token::Slot(b'z') => text.word(Self::word(&self.third, rng)),
                Token::Slot(b'g') => text.word(Self::word(&self.participles, rng)),
                Token::Slot(b'S') => text.put(self.surname(rng)),
                Token::Slot(b'A') => text.put(&capital(Self::word(&self.adjectives, rng))),
                Token::Slot(b'N') => text.put(&capital(Self::word(&self.nouns, rng))),
                Token::Slot(b'Y') => text.put(&rng.range(1890..2024).to_string()),
                Token::Slot(b'#') => text.put(&thousands(rng.range(100..2_000_000))),
                Token::Slot(b'2') => text.put(&rng.range(2..20).to_string()),
                Token::Slot(b'M') => {
                    let month = rng.of(MONTHS);
                    text.put(&format!("{month} {}, {}", rng.range(1..29), rng.range(1920..2024)));
                }
                Token::Slot(b'I') => {
                    let title = rng.of(&["28", "42", "18", "15", "26", "11"]);
                    text.put(&format!("{title} U.S.C. § {}({})", rng.range(100..2400), rng.of(&["a", "b", "c", "d"])));
                }
                Token::Slot(b'C') => self.cited(rng, text, link, html),
                Token::Slot(other) => unreachable!("words.txt has a slot %{}", char::from(*other)),
            }
        }
    }

    /// A citation, in the linked form with a link to the opinion that `link` names.
    fn cited(&self, rng: &mut Rng, text: &mut Text, link: &mut dyn FnMut(&mut Rng) -> Option<u64>, html: bool) {
        let (a, b) = (self.surname(rng), self.surname(rng));
        let (volume, reporter, page, _) = Self::citation(rng);
        let cite = format!("{volume} {reporter} {page}");
        let tail = format!(", {} ({} {})", page + rng.below(20), rng.of(COURTS_CITED), rng.range(1950..2024));
        let (open, close) = if html { ("<em>", "</em>") } else { ("", "") };
        text.put(&format!("{open}{a} v. {b}{close}, "));
        text.plain.push_str(&cite);
        match link(rng) {
            Some(id) => text.linked.push_str(&format!(
                "<span class=\"citation\" data-id=\"{id}\"><a href=\"/opinion/{id}/{}-v-{}/\" \
                 aria-description=\"Citation for case: {a} v. {b}\">{cite}</a></span>",
                slug(a),
                slug(b)
            )),
            None => text.linked.push_str(&cite),
        }
        text.put(&tail);
    }

    /// An opinion of about `bytes`: in paragraphs of HTML, or in lines of about 70 characters with page breaks, as a
    /// converter of PDF files leaves them. `link` gives the id of an opinion to cite.
    pub(super) fn opinion(
        &self,
        rng: &mut Rng,
        bytes: usize,
        html: bool,
        link: &mut dyn FnMut(&mut Rng) -> Option<u64>,
        text: &mut Text,
    ) {
        text.clear();
        let mut paragraph = Text::default();
        let mut number = 0_u64;
        while text.plain.len() < bytes {
            number += 1;
            if html {
                text.put(&format!("<p id=\"b{number}-{}\">", rng.below(9)));
            } else {
                text.put("\n\n      ");
            }
            paragraph.clear();
            for at in 0..rng.range(2..8) {
                if at > 0 {
                    paragraph.put(" ");
                }
                self.sentence_of(rng, &mut paragraph, link, html);
            }
            if html {
                text.plain.push_str(&paragraph.plain);
                text.linked.push_str(&paragraph.linked);
                text.put("</p>\n");
            } else {
                wrap(&paragraph.plain, &mut text.plain);
                wrap(&paragraph.linked, &mut text.linked);
                if number.is_multiple_of(6) {
                    text.put(&format!("\n\n                                   - {} -\n\u{c}", number / 6));
                }
            }
        }
    }
}

/// Appends `text` with line breaks in the place of some spaces, so that most lines have about 70 characters.
fn wrap(text: &str, out: &mut String) {
    let mut rest = text;
    while rest.len() > 70 {
        let Some(at) = rest.as_bytes()[60..].iter().position(|&byte| byte == b' ') else { break };
        out.push_str(&rest[..60 + at]);
        out.push('\n');
        rest = &rest[60 + at + 1..];
    }
    out.push_str(rest);
}

/// A capital letter.
pub(super) fn letter(rng: &mut Rng) -> char {
    char::from(b'A' + rng.below(26) as u8)
}

/// Lower case, with hyphens for all that is neither an ASCII letter nor a digit; at most 75 characters.
pub(super) fn slug(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
        if out.len() == 75 {
            break;
        }
    }
    out.truncate(out.trim_end_matches('-').len());
    out
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_ascii_uppercase() + rest
}

pub(super) fn thousands(number: u64) -> String {
    match number {
        0..1_000 => number.to_string(),
        1_000..1_000_000 => format!("{},{:03}", number / 1_000, number % 1_000),
        _ => format!("{},{:03},{:03}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000),
    }
}

fn tokens(clause: &str) -> Vec<Token> {
    let mut out = Vec::new();
    for (index, part) in clause.split('%').enumerate() {
        let literal = if index == 0 {
            part
        } else {
            out.push(Token::Slot(part.as_bytes()[0]));
            &part[1..]
        };
        if !literal.is_empty() {
            out.push(Token::Literal(literal.to_owned()));
        }
    }
    out
}

/// Whether the last word is "a" or "A", with a space after it.
fn ends_in_article(text: &str) -> bool {
    let mut bytes = text.bytes().rev();
    bytes.next() == Some(b' ')
        && bytes.next().is_some_and(|byte| byte.eq_ignore_ascii_case(&b'a'))
        && bytes.next().is_none_or(|byte| !byte.is_ascii_alphanumeric())
}

/// Whether a word begins with the sound of a vowel: "union" and "use" do not.
fn begins_with_vowel(word: &str) -> bool {
    let long_u = ["uni", "unan", "us", "ut"].iter().any(|start| word.starts_with(start));
    word.starts_with(['a', 'e', 'i', 'o', 'u']) && !long_u
}

/// Whether a word ends in a consonant and y.
fn ends_in_y(word: &str) -> bool {
    let mut letters = word.chars().rev();
    letters.next() == Some('y') && letters.next().is_some_and(|c| !"aeiou".contains(c))
}

fn with_s(word: &str) -> String {
    if ends_in_y(word) {
        format!("{}ies", &word[..word.len() - 1])
    } else if ["s", "x", "ch", "sh"].iter().any(|end| word.ends_with(end)) {
        format!("{word}es")
    } else {
        format!("{word}s")
    }
}

/// The irregular verbs of the list, and those that double their last letter.
const PAST: &[(&str, &str)] = &[
    ("hold", "held"),
    ("find", "found"),
    ("show", "shown"),
    ("leave", "left"),
    ("pay", "paid"),
    ("strike", "struck"),
    ("plead", "pled"),
    ("withdraw", "withdrawn"),
    ("bar", "barred"),
    ("admit", "admitted"),
    ("submit", "submitted"),
    ("permit", "permitted"),
    ("transfer", "transferred"),
    ("refer", "referred"),
    ("compel", "compelled"),
    ("infer", "inferred"),
    ("confer", "conferred"),
    ("occur", "occurred"),
    ("commit", "committed"),
    ("transmit", "transmitted"),
    ("annul", "annulled"),
    ("control", "controlled"),
    ("prove", "proven"),
];

fn past(verb: &str) -> String {
    if let Some((_, past)) = PAST.iter().find(|(base, _)| *base == verb) {
        (*past).to_owned()
    } else if verb.ends_with('e') {
        format!("{verb}d")
    } else if ends_in_y(verb) {
        format!("{}ied", &verb[..verb.len() - 1])
    } else {
        format!("{verb}ed")
    }
}

fn participle(verb: &str) -> String {
    match PAST.iter().find(|(base, _)| *base == verb) {
        Some((_, past)) if past.ends_with("ed") && past.len() == verb.len() + 3 => {
            format!("{}ing", &past[..past.len() - 2])
        }
        _ if verb.ends_with('e') && !verb.ends_with("ee") => format!("{}ing", &verb[..verb.len() - 1]),
        _ => format!("{verb}ing"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_those_of_english() {
        assert_eq!(
            ["policy", "waste", "tax", "breach", "day"].map(with_s),
            ["policies", "wastes", "taxes", "breaches", "days"]
        );
        assert_eq!(
            ["deny", "vacate", "affirm", "refer", "hold"].map(past),
            ["denied", "vacated", "affirmed", "referred", "held"]
        );
        assert_eq!(
            ["deny", "vacate", "agree", "refer", "hold"].map(participle),
            ["denying", "vacating", "agreeing", "referring", "holding"]
        );
    }

    #[test]
    fn articles_agree_with_the_word_after_them() {
        let after = |start: &str, word: &str| {
            let mut text = Text::default();
            text.put(start);
            text.word(word);
            assert_eq!(text.plain, text.linked);
            text.plain
        };
        assert_eq!(after("that a ", "injury"), "that an injury");
        assert_eq!(after("A ", "action"), "An action");
        assert_eq!(after("that a ", "union"), "that a union");
        assert_eq!(after("data ", "are"), "data are");
    }

    #[test]
    fn slugs_and_lines() {
        assert_eq!(slug("O'Brien v. City of  Müll—"), "o-brien-v-city-of-m-ll");
        assert_eq!(slug(&"ab ".repeat(50)).len(), 74);
        assert_eq!(thousands(1_234_567), "1,234,567");
        let mut out = String::new();
        wrap(&"word ".repeat(40), &mut out);
        assert_eq!(out.lines().map(str::len).collect::<Vec<_>>(), [64, 64, 70]);
        assert_eq!(out.replace('\n', " "), "word ".repeat(40));
    }

    #[test]
    fn every_slot_is_known_and_the_vocabulary_has_thousands_of_words() {
        let mut rng = Rng::new(1);
        let mut out = String::new();
        PROSE.passage(&mut rng, 2 << 20, &mut out);
        let words: std::collections::HashSet<&str> = out.split(|c: char| !c.is_alphabetic()).collect();
        assert!((2500..20_000).contains(&words.len()), "{} words", words.len());
    }
}
