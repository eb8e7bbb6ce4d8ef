//! Arguments of one script line: words, and `key=value` pairs in any order.

use std::collections::VecDeque;
use std::error::Error;
use std::str::FromStr;

use goldenscript::Argument;
use quorate_statemachine::{LeaseToken, Name, Owner, Precondition, RequestId, queue::ItemId};

/// Why a line cannot be run.
pub type Bad = Box<dyn Error>;

/// What is left of a line's arguments; a line must use them all.
#[derive(Debug, Clone)]
pub struct Args {
    words: VecDeque<String>,
    pairs: Vec<(String, String)>,
}

impl Args {
    /// Puts `{i}` (the round of a `repeat`) and `{last}` (the last log index) in place.
    pub fn new(arguments: &[Argument], round: u64, last: u64) -> Self {
        let (round, last) = (round.to_string(), last.to_string());
        let filled = |text: &str| text.replace("{i}", &round).replace("{last}", &last);
        let mut args = Self {
            words: VecDeque::new(),
            pairs: Vec::new(),
        };
        for argument in arguments {
            match argument {
                Argument::Positional(word) => args.words.push_back(filled(word)),
                Argument::KeyValue(key, value) => args.pairs.push((key.clone(), filled(value))),
                other => panic!("{other} is neither a word nor a pair"),
            }
        }
        args
    }

    pub fn word(&mut self) -> Option<String> {
        self.words.pop_front()
    }

    pub fn optional(&mut self, key: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(present, _)| present == key)?;
        Some(self.pairs.remove(at).1)
    }

    pub fn required(&mut self, key: &str) -> Result<String, Bad> {
        self.optional(key)
            .ok_or_else(|| format!("{key}= is missing").into())
    }

    pub fn text(&mut self, key: &str) -> String {
        self.optional(key).unwrap_or_default()
    }

    pub fn name(&mut self, key: &str) -> Result<Name, Bad> {
        Ok(Name::parse(key, self.required(key)?)?)
    }

    pub fn optional_name(&mut self, key: &str) -> Result<Option<Name>, Bad> {
        Ok(self
            .optional(key)
            .map(|text| Name::parse(key, text))
            .transpose()?)
    }

    /// `ids=a,b`
    pub fn names(&mut self, key: &str) -> Result<Vec<Name>, Bad> {
        let text = self.required(key)?;
        let names = text.split(',').filter(|name| !name.is_empty());
        Ok(names
            .map(|name| Name::parse(key, name))
            .collect::<Result<_, _>>()?)
    }

    pub fn token(&mut self, key: &str) -> Result<LeaseToken, Bad> {
        Ok(LeaseToken::parse(self.required(key)?)?)
    }

    pub fn number<N: FromStr>(&mut self, key: &str, default: N) -> Result<N, Bad> {
        match self.optional(key) {
            Some(text) => parse_number(key, &text),
            None => Ok(default),
        }
    }

    pub fn required_number<N: FromStr>(&mut self, key: &str) -> Result<N, Bad> {
        parse_number(key, &self.required(key)?)
    }

    /// `250`, `250ms`, `10s`, `5m` or `1h`, in milliseconds.
    pub fn duration(&mut self, key: &str) -> Result<u64, Bad> {
        parse_duration(&self.required(key)?)
    }

    pub fn optional_duration(&mut self, key: &str) -> Result<u64, Bad> {
        self.optional(key)
            .map_or(Ok(0), |text| parse_duration(&text))
    }

    /// `payload=text`, or `payload-bytes=N` for so many bytes.
    pub fn bytes(&mut self, key: &str) -> Result<Vec<u8>, Bad> {
        if let Some(count) = self.optional(&format!("{key}-bytes")) {
            return Ok(vec![b'x'; parse_number(key, &count)?]);
        }
        Ok(self.text(key).into_bytes())
    }

    /// `owner=w1`, or `owner=w1/boot2` for another incarnation.
    pub fn owner(&mut self) -> Result<Owner, Bad> {
        let (owner_id, incarnation_id) = self.owner_names("owner")?;
        let liveness = self.optional("liveness");
        Ok(Owner {
            owner_id,
            incarnation_id,
            liveness,
        })
    }

    pub fn owner_names(&mut self, key: &str) -> Result<(Name, Name), Bad> {
        let text = self.required(key)?;
        let (id, boot) = text.split_once('/').unwrap_or((&text, &text));
        Ok((Name::parse(key, id)?, Name::parse(key, boot)?))
    }

    /// `item=3.1` is the item that step 1 of entry 3 pushed.
    pub fn item(&mut self) -> Result<ItemId, Bad> {
        parse_item(&self.required("item")?)
    }

    /// `request=r1 not-before=7`; the id's bytes are the text's.
    pub fn request(&mut self) -> Result<Option<RequestId>, Bad> {
        let not_before = self.number("not-before", 0)?;
        let Some(text) = self.optional("request") else {
            return Ok(None);
        };
        let id = id_of(&text)?;
        Ok(Some(RequestId { id, not_before }))
    }

    /// `id=r1`; the id's bytes are the text's.
    pub fn id(&mut self) -> Result<[u8; 16], Bad> {
        id_of(&self.required("id")?)
    }

    /// Any number of `fence=KEY@TOKEN`, `lock-fence=KEY@TOKEN` and `claim-fence=QUEUE/ITEM@TOKEN`.
    pub fn preconditions(&mut self) -> Result<Vec<Precondition>, Bad> {
        let mut all = Vec::new();
        while let Some(text) = self.optional("fence") {
            let (key, token) = split(&text, '@')?;
            all.push(Precondition::Lease {
                key: Name::parse("fence", key)?,
                token: parse_number("fence", token)?,
            });
        }
        while let Some(text) = self.optional("lock-fence") {
            let (key, token) = split(&text, '@')?;
            all.push(Precondition::Lock {
                key: Name::parse("lock-fence", key)?,
                token: parse_number("lock-fence", token)?,
            });
        }
        while let Some(text) = self.optional("claim-fence") {
            let (place, token) = split(&text, '@')?;
            let (queue, item) = split(place, '/')?;
            all.push(Precondition::Claim {
                queue: Name::parse("claim-fence", queue)?,
                item_id: parse_item(item)?,
                token: parse_number("claim-fence", token)?,
            });
        }
        Ok(all)
    }

    /// Refuses what the line did not use.
    pub fn finish(self) -> Result<(), Bad> {
        if self.words.is_empty() && self.pairs.is_empty() {
            return Ok(());
        }
        Err(format!("not understood: {:?} {:?}", self.words, self.pairs).into())
    }
}

pub fn id_of(text: &str) -> Result<[u8; 16], Bad> {
    let mut id = [0; 16];
    let room = id
        .get_mut(..text.len())
        .ok_or("an id has at most 16 bytes")?;
    room.copy_from_slice(text.as_bytes());
    Ok(id)
}

pub fn split(text: &str, at: char) -> Result<(&str, &str), Bad> {
    text.rsplit_once(at)
        .ok_or_else(|| format!("{text:?} has no {at:?}").into())
}

pub fn parse_number<N: FromStr>(key: &str, text: &str) -> Result<N, Bad> {
    text.parse()
        .map_err(|_| format!("{key}: {text:?} is no such number").into())
}

pub fn parse_duration(text: &str) -> Result<u64, Bad> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match &text[digits.len()..] {
        "" | "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        unit => return Err(format!("{unit:?} is no unit of time").into()),
    };
    Ok(parse_number::<u64>("duration", digits)? * scale)
}

/// `3.1`, or the plain number of the id, as a page's `next` shows it.
pub fn parse_item(text: &str) -> Result<ItemId, Bad> {
    let Some((index, step)) = text.split_once('.') else {
        return Ok(ItemId(parse_number("item", text)?));
    };
    let (index, step): (u64, u64) = (parse_number("item", index)?, parse_number("item", step)?);
    Ok(ItemId(index << 10 | step))
}
