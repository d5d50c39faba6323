//! The elements of fields that DSPy does not see, and what stands between tags in a reply that is no XML.

use super::{Candidate, Found, Strict};
use crate::response::read::{Element, Host, Reader, Repair, RepairCode, Step, Values};
use crate::response::stream::{xml_elements, xml_text};
use crate::response::value::Value;

type Candidates<H> = Vec<Candidate<<H as Host>::Value>>;

impl<H: Host> Reader<'_, H> {
    /// Candidates for each output that DSPy does not read and the reply has somewhere.
    pub(super) fn xml_parts(&mut self, strict: &[Strict]) -> Step<Vec<Candidates<H>>, H> {
        let Ok(whole) = self.host.parse_xml(self.reply)? else {
            return self.between_tags();
        };
        let own: Vec<usize> = (0..strict.len())
            .filter(|at| matches!(strict[*at], Strict::Read | Strict::Refused))
            .collect();
        // Where all that must be there is, the elements of others are what they seem.
        let is_nested = own.is_empty() || strict.contains(&Strict::Missing);
        let mut candidates: Vec<_> = strict.iter().map(|_| Vec::new()).collect();
        for (output, strict) in strict.iter().enumerate() {
            candidates[output] = match strict {
                Strict::Refused => match self.host.element(&whole, output)? {
                    Some(element) => self.element_parts(&whole, output, element, &[])?,
                    None => Vec::new(),
                },
                Strict::Absent | Strict::Missing if is_nested => {
                    // Nobody else's, unless the field must be there.
                    let except: &[usize] = if *strict == Strict::Absent { &own } else { &[] };
                    let inner = self.host.nested_xml(&whole, output, except)?;
                    match self.host.element(&inner, output)? {
                        Some(element) if element.count == 1 => {
                            self.read_or_parts(&inner, output, element)?
                        }
                        Some(element) => vec![several(element.count)],
                        None => Vec::new(),
                    }
                }
                _ => Vec::new(),
            };
        }
        Ok(candidates)
    }

    /// What is between the fields' own tags, of a reply that is no XML. They are there once each at the top, or at
    /// least once each anywhere: then all between is the value.
    fn between_tags(&mut self) -> Step<Vec<Candidates<H>>, H> {
        let (plan, reply) = (self.plan, self.reply);
        let elements = xml_elements(reply);
        let mut candidates = Vec::with_capacity(plan.outputs.len());
        for (output, field) in plan.outputs.iter().enumerate() {
            let name = &*field.name;
            let mut inside: Vec<&str> = elements
                .iter()
                .filter(|(other, ..)| other == name)
                .map(|(_, start, end)| &reply[*start..*end])
                .collect();
            if inside.is_empty() {
                inside = between(reply, name);
            }
            candidates.push(match *inside {
                [] => Vec::new(),
                [only] => self.inside_parts(output, name, only)?,
                _ => vec![several(inside.len())],
            });
        }
        Ok(candidates)
    }

    fn inside_parts(&mut self, output: usize, name: &str, inside: &str) -> Step<Candidates<H>, H> {
        let parsed = self.host.parse_xml(&format!("<{name}>{inside}</{name}>"))?;
        if let Ok(xml) = parsed {
            return match self.host.element(&xml, output)? {
                Some(element) => self.read_or_parts(&xml, output, element),
                None => Ok(Vec::new()),
            };
        }
        let text = xml_text(inside);
        let repair = Repair::new(Some(output), RepairCode::Xml, &text);
        let text = self.host.values().make(&Value::Str(text.into()))?;
        Ok(vec![Candidate::raw(text, vec![repair])])
    }

    /// What DSPy reads where it sees the element; else what may be near that.
    fn read_or_parts(
        &mut self,
        xml: &H::Xml,
        output: usize,
        element: Element,
    ) -> Step<Candidates<H>, H> {
        let repair = Repair::new(Some(output), RepairCode::Xml, &element.text);
        match self.host.read_xml(xml, output) {
            Ok(read) => Ok(read
                .into_iter()
                .map(|(value, code)| Candidate {
                    what: Found::Value(value, code, element.text.clone()),
                    repairs: vec![repair.clone()],
                })
                .collect()),
            Err(error) => {
                let refused = self.refused_by(output, error);
                if refused.kind.is_refusal() {
                    self.element_parts(xml, output, element, &[repair])
                } else {
                    Err(refused)
                }
            }
        }
    }

    /// The text of an output's element, and what its elements say before they are converted.
    fn element_parts(
        &mut self,
        xml: &H::Xml,
        output: usize,
        element: Element,
        repairs: &[Repair],
    ) -> Step<Candidates<H>, H> {
        let text = if element.count == 1 {
            let text = self.host.values().make(&Value::Str(element.text.into()))?;
            Candidate::raw(text, repairs.to_vec())
        } else {
            several(element.count)
        };
        let Some(tree) = self.host.tree(xml, output)? else {
            return Ok(vec![text]);
        };
        let tree = Candidate::raw(tree, repairs.to_vec());
        Ok(if element.has_children {
            vec![tree, text]
        } else {
            vec![text, tree]
        })
    }
}

fn several<V>(count: usize) -> Candidate<V> {
    Candidate::ambiguous(format!("its tag stands in {count} places"))
}

/// What stands between the tags of a name: from the first that opens to the one that closes, or behind each that opens
/// if there are several.
fn between<'a>(reply: &'a str, name: &str) -> Vec<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let opened: Vec<&str> = reply.split(&open).collect();
    let mut closed = reply.split(&close);
    let (before, only) = (closed.next().unwrap_or_default(), closed.count() == 1);
    match &*opened {
        [first, _] if only && first.len() < before.len() => {
            vec![&before[first.len() + open.len()..]]
        }
        [_, rest @ ..] if rest.len() > 1 => rest.to_vec(),
        _ => Vec::new(),
    }
}
