//! The XML that requests which change something are answered with.

use quick_xml::Reader;
use quick_xml::events::Event;

/// The texts in it, in their order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct UploadAnswer {
    /// The name of the root element; empty if there is none.
    pub(crate) root: String,
    /// Name and text of each element without children.
    texts: Vec<(String, String)>,
}

impl UploadAnswer {
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, String> {
        let mut reader = Reader::from_reader(body);
        reader.config_mut().expand_empty_elements = true;
        let (mut answer, mut depth, mut text, mut is_leaf) = (Self::default(), 0_u32, String::new(), false);
        loop {
            let broken = |error: &dyn std::fmt::Display| format!("the XML of its answer is broken: {error}");
            match reader.read_event().map_err(|error| broken(&error))? {
                Event::Start(start) => {
                    let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                    if depth == 0 && answer.root.is_empty() {
                        answer.root = name;
                    }
                    depth += 1;
                    text.clear();
                    is_leaf = true;
                }
                Event::Text(part) => text.push_str(&part.decode().map_err(|error| broken(&error))?),
                Event::CData(part) => text.push_str(&part.decode().map_err(|error| broken(&error))?),
                Event::GeneralRef(entity) => match entity.resolve_char_ref() {
                    Ok(Some(char)) => text.push(char),
                    _ => text.push(match &*entity.decode().map_err(|error| broken(&error))? {
                        "amp" => '&',
                        "lt" => '<',
                        "gt" => '>',
                        "quot" => '"',
                        "apos" => '\'',
                        name => return Err(broken(&format!("it has an unknown entity &{name};"))),
                    }),
                },
                Event::End(end) => {
                    if is_leaf {
                        let name = String::from_utf8_lossy(end.local_name().as_ref()).into_owned();
                        answer.texts.push((name, std::mem::take(&mut text)));
                    }
                    depth = depth.saturating_sub(1);
                    is_leaf = false;
                }
                Event::Eof if depth > 0 => return Err("its answer ends in the middle".to_owned()),
                Event::Eof => return Ok(answer),
                _ => {}
            }
        }
    }

    /// The text of the first element of this name.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.texts.iter().find(|(other, _)| other == name).map(|(_, text)| text.as_str())
    }

    /// Keys and ids of uploads, as they stand there.
    pub(crate) fn uploads(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut key = None;
        self.texts.iter().filter_map(move |(name, text)| match name.as_str() {
            "Key" => {
                key = Some(text.as_str());
                None
            }
            "UploadId" => key.take().map(|key| (key, text.as_str())),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::UploadAnswer;

    #[test]
    fn texts_are_read_by_name_and_uploads_in_pairs() {
        let body = "<?xml version=\"1.0\"?>\n<s:ListMultipartUploadsResult xmlns:s=\"x\"><Bucket>b</Bucket>\
                    <UploadIdMarker/><NextUploadIdMarker>i&amp;&#x2B;</NextUploadIdMarker>\
                    <Upload><Key>a%20b</Key><Owner><ID>o</ID></Owner><UploadId>1&quot;</UploadId></Upload>\
                    <Upload><Key>c</Key><UploadId><![CDATA[<2>]]></UploadId></Upload></s:ListMultipartUploadsResult>";
        let answer = UploadAnswer::parse(body.as_bytes()).unwrap();
        assert_eq!(answer.root, "ListMultipartUploadsResult");
        assert_eq!(answer.text("NextUploadIdMarker"), Some("i&+"));
        assert_eq!(answer.text("UploadIdMarker"), Some(""));
        assert_eq!(answer.text("IsTruncated"), None);
        assert_eq!(answer.uploads().collect::<Vec<_>>(), [("a%20b", "1\""), ("c", "<2>")]);
    }

    #[test]
    fn what_is_no_answer_says_why() {
        assert_eq!(UploadAnswer::parse(b""), Ok(UploadAnswer::default()));
        assert_eq!(UploadAnswer::parse(b"<a><b>"), Err("its answer ends in the middle".to_owned()));
        assert!(UploadAnswer::parse(b"<a></b>").unwrap_err().starts_with("the XML of its answer is broken: "));
        assert!(UploadAnswer::parse(b"<a>&x;</a>").unwrap_err().ends_with("it has an unknown entity &x;"));
    }
}
