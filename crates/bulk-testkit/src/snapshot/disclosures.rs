//! The rows of the tables about the financial disclosures of judges.

use super::pen::Pen;
use super::prose::{PROSE, slug, thousands};
use super::world::TableId;

const BUCKET: &str = "us/federal/judicial/financial-disclosures";

pub(super) fn disclosure(pen: &mut Pen<'_>, index: u64) {
    let (year, judge) = (pen.rng.range(2003..2023), PROSE.person(&mut pen.rng));
    pen.id(TableId::Disclosure, index).stamps().int(year);
    pen.text(&format!("https://storage.example.org/{BUCKET}/{}_{year}.pdf", judge.replace(' ', "%20")));
    pen.text(&format!("{BUCKET}/{index}/{}-disclosure.{year}.pdf", slug(&judge)));
    match pen.rng.below(3) {
        0 => pen.null(),
        1 => pen.empty(),
        _ => pen.text(&format!("thumbnails/{index}.png")),
    };
    pen.number(0..3)
        .number(5..45)
        .sha1()
        .of(&["-1", "0", "1", "2", "3"])
        .maybe_bool()
        .prose(300, 200)
        .bool(20)
        .bool(900);
    pen.pick(TableId::Person);
}

pub(super) fn investment(pen: &mut Pen<'_>, index: u64) {
    let what = match pen.rng.below(8) {
        0 => "Vanguard 500 Index Fund".to_owned(),
        1 => "U.S. Treasury Notes".to_owned(),
        2 => "IRA #1 (H)".to_owned(),
        3 => "— Cash & money market".to_owned(),
        4 => format!("Rental property, {}, {} (1998 $245,000)", PROSE.city(&mut pen.rng), PROSE.state(&mut pen.rng)),
        5 => format!("Brokerage Account #{} (X)", pen.rng.range(1..20)),
        6 => format!("Note, \"{}\"", PROSE.company(&mut pen.rng)),
        _ => format!("{} common stock", PROSE.company(&mut pen.rng)),
    };
    let traded = pen.rng.chance(200).then(|| pen.some_day(2003, 2023));
    pen.id(TableId::Investment, index)
        .stamps()
        .number(1..30)
        .text(&what)
        .bool(20)
        .of(&["A", "B", "C", "D", "E", "F", "G", "H1"]);
    pen.of(&["Dividend", "Int./Div.", "Interest", "Rent", "None", ""]).of(&["J", "K", "L", "M", "N", "O", "P1"]);
    pen.of(&["T", "Q", "R", "S", "U", "V", "W"]);
    if traded.is_some() {
        let raw = format!("{:02}/{:02}/{:02}", pen.rng.range(1..13), pen.rng.range(1..32), pen.rng.range(3..23));
        pen.of(&["Buy", "Sold (part)", "Redeemed"])
            .text(&raw)
            .chosen(traded)
            .of(&["J", "K", "L", "M"])
            .of(&["", "A", "B"]);
    } else {
        pen.empty().empty().null().empty().empty();
    }
    pen.empty().bool(300).pick(TableId::Disclosure);
}

pub(super) fn position(pen: &mut Pen<'_>, index: u64) {
    pen.id(TableId::DisclosedPosition, index).stamps();
    pen.of(&["Director", "Trustee", "Adjunct Professor", "President\n(unpaid)"]).company();
    tail(pen);
}

pub(super) fn agreement(pen: &mut Pen<'_>, index: u64) {
    let with = PROSE.company(&mut pen.rng);
    pen.id(TableId::Agreement, index)
        .stamps()
        .number(1990..2023)
        .text(&format!("Pension from former law firm; {with}"));
    tail(pen);
}

pub(super) fn non_investment_income(pen: &mut Pen<'_>, index: u64) {
    let from = PROSE.company(&mut pen.rng);
    pen.id(TableId::NonInvestmentIncome, index).stamps().number(2003..2023).text(&format!("Teaching—{from}"));
    pen.or_empty(900, |rng| format!("${}.00", thousands(rng.below(30_000))));
    tail(pen);
}

pub(super) fn spouse_income(pen: &mut Pen<'_>, index: u64) {
    let from = PROSE.company(&mut pen.rng);
    pen.id(TableId::SpouseIncome, index).stamps().text(&format!("Salary, {from}")).number(2003..2023);
    tail(pen);
}

pub(super) fn reimbursement(pen: &mut Pen<'_>, index: u64) {
    let host = PROSE.surname(&mut pen.rng);
    pen.id(TableId::Reimbursement, index).stamps().text(&format!("{host} Law School"));
    let (month, day, year) = (pen.rng.range(1..13), pen.rng.range(1..25), pen.rng.range(2003..2023));
    pen.text(&format!("{month}/{day} - {month}/{}, {year}", day + 3));
    let place = format!("{}, {}", PROSE.city(&mut pen.rng), PROSE.state(&mut pen.rng));
    pen.text(&place).of(&["Seminar", "Moot court", "Conference"]).text("Transportation, meals & lodging");
    tail(pen);
}

pub(super) fn gift(pen: &mut Pen<'_>, index: u64) {
    pen.id(TableId::Gift, index).stamps().company().of(&["Season pass", "Portrait", "Books"]);
    pen.or_empty(900, |rng| format!("${}", thousands(rng.below(5_000))));
    tail(pen);
}

pub(super) fn debt(pen: &mut Pen<'_>, index: u64) {
    pen.id(TableId::Debt, index).stamps().company().of(&["Mortgage", "Credit card", "Line of credit"]);
    pen.of(&["J", "K", "L", "M"]);
    tail(pen);
}

/// redacted and financial_disclosure_id
fn tail(pen: &mut Pen<'_>) {
    pen.bool(30).pick(TableId::Disclosure);
}
