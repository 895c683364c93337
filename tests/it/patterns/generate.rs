//! Small random patterns and texts, the same for the same seed.

use super::Row;

/// Around a possessive repetition, until it is written in one way or the other.
const OPEN: char = '\u{1}';
const CLOSE: char = '\u{2}';

pub struct Dice(u64);

impl Dice {
    /// From 0 to below `sides`.
    fn roll(&mut self, sides: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }
}

/// Well-formed patterns that combine everything with everything, on texts of few letters, so that many match.
pub fn patterns(seed: u64, count: usize) -> Vec<Row> {
    let mut dice = Dice(seed);
    (0..count)
        .map(|_| {
            let mut shape = Shape { dice: &mut dice, opened: 0, closed: Vec::new() };
            let flags =
                if shape.dice.roll(8) == 0 { shape.dice.pick(&["(?i)", "(?s)", "(?m)", "(?x)", "(?a)", "(?ai)", "(?im)"]) } else { "" };
            let depth = 2 + shape.dice.roll(3);
            let pattern = format!("{flags}{}", shape.node(depth));
            let possessive = pattern.replace(OPEN, "").replace(CLOSE, "+");
            let atomic = pattern.contains(OPEN).then(|| pattern.replace(OPEN, "(?>").replace(CLOSE, ")"));
            Row { pattern: possessive, atomic, texts: texts(&mut dice) }
        })
        .collect()
}

/// Pieces of syntax thrown together: mostly nonsense, to see that what Python refuses is refused.
pub fn soup(seed: u64, count: usize) -> Vec<Row> {
    const PIECES: &[&str] = &[
        "(", "(", ")", ")", ")", "(?:", "(?P<n>", "(?P=n)", "(?P", "(?(1)", "(?(n)", "(?(", "(?=", "(?!", "(?<=", "(?<!", "(?<", "(?>",
        "(?#", "(?i)", "(?i:", "(?a)", "(?u)", "(?ax-i:", "(?x)", "(?-", "(?", "|", "|", "*", "+", "?", "{", "}", "{2}", "{,2}", "{2,1}",
        "{,}", ",", "a", "a", "b", "b", "1", "8", "[", "[^", "]", "]", "-", "&&", "--", "^", "$", ".", "\\", "\\1", "\\2", "\\12", "\\01",
        "\\123", "\\400", "\\x4", "\\x41", "\\u0041", "\\d", "\\w", "\\b", "\\B", "\\A", "\\Z", "\\y", "\\-", " ", "#", "\n", "i", ":",
        "=", "!", "<", ">", "é", "n",
    ];
    let mut dice = Dice(seed);
    (0..count)
        .map(|_| {
            let length = 1 + dice.roll(9);
            let pattern: String = (0..length).map(|_| dice.pick(PIECES)).collect();
            Row { pattern, atomic: None, texts: ["", "a", "b", "ab", "1", "a1", "A", "-", "#", "é"].map(str::to_owned).to_vec() }
        })
        .collect()
}

fn texts(dice: &mut Dice) -> Vec<String> {
    let letters = ["a", "a", "a", "b", "b", "A", "é", "\n", "-"];
    let few = 2 + dice.roll(letters.len() - 1);
    let mut texts: Vec<String> = ["", "a", "b", "ab", "aa"].map(str::to_owned).to_vec();
    for _ in 0..10 {
        let length = dice.roll(8);
        texts.push((0..length).map(|_| letters[dice.roll(few)]).collect());
    }
    texts.sort();
    texts.dedup();
    texts
}

/// A pattern in the making.
struct Shape<'d> {
    dice: &'d mut Dice,
    opened: usize,
    closed: Vec<usize>,
}

impl Shape<'_> {
    fn node(&mut self, depth: usize) -> String {
        if depth == 0 {
            return self.leaf();
        }
        let inner = depth - 1;
        match self.dice.roll(100) {
            0..30 => self.leaf(),
            30..48 => format!("{}{}", self.node(inner), self.node(inner)),
            48..56 => format!("(?:{}|{})", self.node(inner), self.node(inner)),
            56..70 => self.capture(inner),
            70..86 => {
                let repeated = match self.dice.roll(3) {
                    0 => self.capture(inner),
                    _ => format!("(?:{})", self.node(inner)),
                };
                self.repeat(&repeated)
            }
            86..92 => format!("{}{})", self.dice.pick(&["(?=", "(?!"]), self.node(inner)),
            92..94 => format!("{}{})", self.dice.pick(&["(?<=", "(?<!"]), self.node(inner / 2)),
            94..96 => format!("(?>{})", self.node(inner)),
            96..97 => format!("{}{})", self.dice.pick(&["(?i:", "(?s:", "(?m:", "(?-i:", "(?a:"]), self.node(inner)),
            _ => self.conditional(inner / 2),
        }
    }

    fn capture(&mut self, depth: usize) -> String {
        self.opened += 1;
        let group = self.opened;
        let open = if self.dice.roll(6) == 0 { format!("(?P<g{group}>") } else { "(".to_owned() };
        let body = match self.dice.roll(3) {
            0 => format!("{}|{}", self.node(depth), self.node(depth)),
            _ => self.node(depth),
        };
        self.closed.push(group);
        format!("{open}{body})")
    }

    fn conditional(&mut self, depth: usize) -> String {
        if self.closed.is_empty() {
            return self.leaf();
        }
        let group = self.closed[self.dice.roll(self.closed.len())];
        match self.dice.roll(4) {
            0 => format!("(?({group}){})", self.node(depth)),
            _ => format!("(?({group}){}|{})", self.node(depth), self.node(depth)),
        }
    }

    fn repeat(&mut self, repeated: &str) -> String {
        let times = self.dice.pick(&["*", "+", "?", "{2}", "{,2}", "{1,2}", "{0,3}", "{2,}"]);
        match self.dice.roll(6) {
            0..3 => format!("{repeated}{times}"),
            3..5 => format!("{repeated}{times}?"),
            _ => format!("{OPEN}{repeated}{times}{CLOSE}"),
        }
    }

    fn leaf(&mut self) -> String {
        match self.dice.roll(100) {
            0..60 => self.dice.pick(&["a", "a", "b", "b", "A", "é"]).to_owned(),
            60..66 => ".".to_owned(),
            66..76 => self.dice.pick(&["[ab]", "[^a]", "[^b]", r"\w", r"\W", r"[^\w]", r"\s", "[a-b-]", "[A-Z]", "\\n"]).to_owned(),
            76..84 => self.dice.pick(&["^", "$", r"\A", r"\Z", r"\b", r"\B", "$"]).to_owned(),
            84..88 => {
                let repeated = self.dice.pick(&["a", "b", "[ab]", "."]);
                self.repeat(repeated)
            }
            88..90 => String::new(),
            _ if self.closed.is_empty() => "b".to_owned(),
            _ => {
                let group = self.closed[self.dice.roll(self.closed.len())];
                format!("\\{group}")
            }
        }
    }
}
