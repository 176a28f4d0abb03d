//! Numbers and truth values in many spellings.

use proptest::prelude::*;

use crate::reference::{Reference, SPELLINGS, any_of, edited, one_of, spaced};

pub(crate) fn integer() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i8>().prop_map(i128::from),
        any::<i16>().prop_map(i128::from),
        any::<i32>().prop_map(i128::from),
        any::<i64>().prop_map(i128::from),
        (prop::sample::select(vec![15, 16, 31, 32, 63, 64, 100]), -2..=2_i128)
            .prop_map(|(bit, near)| (1 << bit) + near),
        (prop::sample::select(vec![15, 16, 31, 32, 63, 64, 100]), -2..=2_i128)
            .prop_map(|(bit, near)| near - (1 << bit)),
        (0..20_u32, -1..=1_i128).prop_map(|(power, near)| 10_i128.pow(power) + near),
    ];
    let spelled = (number, 0..4, 0..30_usize).prop_map(|(number, style, width)| match style {
        0 => format!("{number:+}"),
        1 => format!("{number:0width$}"),
        _ => number.to_string(),
    });
    let odd =
        one_of(&["", "-", "+", " ", "--1", "1_000", "0x1F", "0b11", "0o17", "١", "1\u{a0}", "1e3", "1.0", "NULL"]);
    prop_oneof![20 => edited(spaced(spelled), "0123456789+- _xXobef.,é\t"), 1 => odd, 2 => any_of("01 +-x_b", 0..5)]
}

#[tokio::test]
async fn integers() {
    let reference = Reference::new().await;
    for type_name in ["smallint", "integer", "bigint"] {
        let seen = reference.spellings(type_name, SPELLINGS, integer()).await;
        assert!(seen.understood > 100 && seen.invalid > 80 && seen.unclear > 5, "{type_name}: {seen:?}");
    }
}

#[tokio::test]
async fn booleans() {
    let reference = Reference::new().await;
    let word =
        one_of(&["true", "false", "yes", "no", "on", "off", "1", "0", "t", "f", "T", "F", "null", "01", "o", ""]);
    let cut = (word, 0..6_usize, any::<u8>()).prop_map(|(word, len, upper)| {
        let case = |(at, letter): (usize, char)| {
            if upper >> at & 1 == 1 { letter.to_ascii_uppercase() } else { letter }
        };
        word.chars().take(len).enumerate().map(case).collect()
    });
    let seen = reference.spellings("boolean", SPELLINGS, edited(spaced(cut), "tfyn10 oée")).await;
    assert!(seen.understood > 80 && seen.invalid > 80, "{seen:?}");
}

fn float() -> impl Strategy<Value = String> {
    let bits = prop_oneof![
        any::<u64>().prop_map(f64::from_bits).prop_filter("a signed NaN is written as one without", |x| !x.is_nan()),
        any::<f64>(),
        any::<f32>().prop_map(f64::from),
        any::<u32>().prop_map(|bits| f64::from(f32::from_bits(bits))),
        (-330..310_i32).prop_map(|power| 10_f64.powi(power)),
    ];
    let written = (bits, 0..4).prop_map(|(number, style)| match style {
        0 => format!("{number}"),
        1 => format!("{number:e}"),
        2 => format!("{number:+.3E}"),
        _ => format!("{number:.12e}"),
    });
    let digits = (any_of("0123456789", 0..20), any_of("0123456789", 0..20), -400..400_i32, 0..4).prop_map(
        |(whole, fraction, exponent, style)| match style {
            0 => format!("{whole}.{fraction}"),
            1 => format!("-{whole}.{fraction}e{exponent}"),
            2 => format!("+{whole}E{exponent:+}"),
            _ => format!("{whole}.{fraction}e{exponent}"),
        },
    );
    let odd = one_of(&[
        "",
        ".",
        "-",
        "e5",
        "1e",
        "1e+",
        ".e1",
        "nan",
        "NaN",
        "-nan",
        "+NAN",
        "inf",
        "-Inf",
        "+inf",
        "infinity",
        "INFINITY",
        "-infinity",
        "+Infinity",
        "infinit",
        "0x1p3",
        "0x",
        "1f",
        "1d",
        "nan(1)",
        "-0",
        "-0.0",
        "0e999999",
        "1e-999",
        "1e999",
        "-1e999",
        "1e99999999999999999999",
        "1_0",
        "1,5",
        "4.9e-324",
        "2.4e-324",
        "2.5e-324",
        "1.7976931348623157e308",
        "1.7976931348623159e308",
        "3.4028235e38",
        "3.4028236e38",
        "1.4e-45",
        "0.7e-45",
        "0.70064923216240853e-45",
        "0.70064923216240854e-45",
        "1 2",
        "0",
        "00",
        "0000000000000000000000.1",
    ]);
    prop_oneof![4 => edited(spaced(written), "0123456789.eE+-xnif_ (é"), 4 => spaced(digits), 1 => spaced(odd)]
}

#[tokio::test]
async fn floats() {
    let reference = Reference::new().await;
    for type_name in ["real", "double precision"] {
        let seen = reference.spellings(type_name, SPELLINGS, float()).await;
        assert!(seen.understood > 200 && seen.invalid > 50 && seen.unclear > 5, "{type_name}: {seen:?}");
    }
}

fn numeric() -> impl Strategy<Value = String> {
    let exponent = prop_oneof![3 => Just(String::new()), 1 => (-40..40_i32).prop_map(|exponent| format!("e{exponent}")),
        1 => (-9..9_i32).prop_map(|exponent| format!("E{exponent:+}"))];
    let digits = || {
        prop_oneof![
            any_of("0123456789", 0..12),
            any_of("09", 0..12),
            any_of("9", 0..8),
            any_of("0123456789", 0..60),
            any_of("0", 0..20),
        ]
    };
    let number = (one_of(&["", "", "-", "+"]), digits(), one_of(&["", ".", "."]), digits(), exponent)
        .prop_map(|(sign, whole, point, fraction, exponent)| format!("{sign}{whole}{point}{fraction}{exponent}"));
    let odd = one_of(&[
        "",
        ".",
        "-",
        "nan",
        "NaN",
        "-nan",
        "inf",
        "-Infinity",
        "1e",
        "e1",
        "0x1f",
        "1_000",
        "1,000",
        "$1",
        "-0",
        "-0.00",
        "1e200",
        "1e-200",
        "1e2000000",
        "1e-2000000",
        "1e99999999999",
        "0e5",
        "0e-5",
        "0.0e3",
        "abc",
        "é",
        "1.2.3",
        "1 2",
    ]);
    prop_oneof![10 => edited(spaced(number), "0123456789.eE+-x_ né"), 1 => spaced(odd)]
}

#[tokio::test]
async fn numerics() {
    let reference = Reference::new().await;
    for (type_name, understood) in [
        ("numeric", 500),
        ("numeric(10, 2)", 150),
        ("numeric(5)", 50),
        ("numeric(3, 3)", 30),
        ("numeric(38, 10)", 200),
        ("numeric(1000, 500)", 500),
    ] {
        let seen = reference.spellings(type_name, SPELLINGS, numeric()).await;
        assert!(seen.understood > understood && seen.invalid > 10 && seen.unclear > 30, "{type_name}: {seen:?}");
    }
}
