use super::*;

/// Pattern, texts that `re.fullmatch` accepts, texts that it does not. Checked against CPython 3.
const TABLE: &[(&str, &[&str], &[&str])] = &[
    ("abc", &["abc"], &["ab", "abcd", "xabc", "abc\n", "ABC"]),
    (r".*@example\.com", &["a@example.com", "@example.com"], &["a@example.com.evil.test", "a@exampleXcom", "a@example.com\n"]),
    (r"[^@\s]+@[^@\s]+\.[^@\s]+", &["v@example.org"], &["v example@b.c", "a@b", "a@b@c.d", "a@b.c\n"]),
    (r"^user$", &["user"], &["user\n", "users"]),
    (r"(?:a$|b$)", &["a", "b"], &["a\n", "ab"]),
    (r"a$|bc", &["a", "bc"], &["abc", "a\n"]),
    (r"(x(a$)?)", &["x", "xa"], &["xa\n", "xaa"]),
    (r"user\Z", &["user"], &["user\n"]),
    (r"\Auser\z", &["user"], &["user\n"]),
    (r"a|ab", &["a", "ab"], &["abb"]),
    (r"a{,3}", &["", "a", "aaa"], &["aaaa"]),
    (r"a{2}", &["aa"], &["a", "aaa"]),
    (r"a{2,}", &["aa", "aaaaa"], &["a"]),
    (r"a{1,2}?b", &["ab", "aab"], &["aaab"]),
    (r"a{,}", &["", "aaaa"], &["b"]),
    ("a{}", &["a{}"], &["a", ""]),
    ("a{b}", &["a{b}"], &["a"]),
    ("a{1", &["a{1"], &["a"]),
    ("{", &["{"], &[""]),
    ("a]}", &["a]}"], &["a"]),
    ("[[]", &["["], &["]", ""]),
    ("[]]", &["]"], &["["]),
    ("[^]]", &["a"], &["]"]),
    ("[a&&b]", &["a", "b", "&"], &["c", "ab"]),
    ("[a~~b]+", &["a~b"], &["c"]),
    (r"[+--]", &["+", ",", "-"], &["."]),
    (r"[a\-z]+", &["a-z"], &["b"]),
    ("[-a]+", &["-a"], &["b"]),
    ("[a-]+", &["-a"], &["b"]),
    ("[a-c]+", &["abc"], &["d", "-"]),
    (r"[\w-]+", &["a-b_9"], &["a b"]),
    (r"[^\w]", &["-", "\u{301}"], &["a", "_", "²"]),
    (r"[\W]", &["-"], &["a"]),
    (r"[\b]", &["\x08"], &["b"]),
    (r"[\]\[]+", &["[]"], &["a"]),
    (r"[\x41-\x43]", &["B"], &["D"]),
    (r"\x41\u0042\U00000043", &["ABC"], &["abc"]),
    (r"\0", &["\0"], &["0"]),
    (r"\101\012", &["A\n"], &["A"]),
    (r"\d+", &["123", "٣"], &["12a", "²"]),
    (r"\D", &["a"], &["1"]),
    (r"\w+", &["ab_9", "žluť", "²"], &["a-b", "e\u{301}"]),
    (r"\s", &[" ", "\n", "\u{a0}", "\x1c"], &["a", "\u{200b}"]),
    (r"\S+", &["ab"], &["a\x1fb"]),
    (r"(?a)\w+", &["ab_9"], &["ž", "²"]),
    (r"(?a)\d", &["1"], &["٣"]),
    (r"(?a)[\S]", &["\u{a0}"], &[" "]),
    (r"(?a:\d)\d", &["1٣"], &["٣1"]),
    (r"(?u)\w", &["ž"], &["-"]),
    (r"(?i)ABC", &["abc", "AbC"], &["abd"]),
    (r"(?i:a)b", &["Ab", "ab"], &["aB"]),
    (r"(?i)a(?-i:b)", &["Ab", "ab"], &["AB"]),
    (r"(?i)ŽLUŤ", &["žluť"], &["zlut"]),
    (r"(?i)[^a]", &["b"], &["a", "A"]),
    (r"a.b", &["axb", "a\rb"], &["a\nb", "ab"]),
    (r"(?s)a.b", &["a\nb"], &["ab"]),
    (r"(?s:.)", &["\n"], &[""]),
    (r"(?i)(?s)a.", &["A\n"], &["A"]),
    (r"(?m)a$\nb", &["a\nb"], &["ab"]),
    (r"(?m)^a$\n^b$", &["a\nb"], &["a\n"]),
    ("(?x) a b # a comment\n c [ ]", &["abc "], &["a b c ", "abc"]),
    (r"(?x)a\ b", &["a b"], &["ab"]),
    (r"(?x:a b)c d", &["abc d"], &["abcd"]),
    ("a b", &["a b"], &["ab"]),
    ("a#b", &["a#b"], &["a"]),
    ("a(?#a comment)b", &["ab"], &["a"]),
    ("(?P<name>a)b", &["ab"], &["a"]),
    ("(a(b(c)))", &["abc"], &["ab"]),
    ("()", &[""], &["a"]),
    ("a|", &["a", ""], &["b"]),
    ("(|a)", &["a", ""], &["b"]),
    ("a+?b*?c??", &["ab", "abbc"], &["b"]),
    ("(ab)+", &["abab"], &["aba"]),
    ("(a*)*", &["", "aaa"], &["b"]),
    (r"\bfoo\b", &["foo"], &["foos"]),
    (r"\.\@\-\/\!\_", &[".@-/!_"], &["x"]),
    (r"\ž", &["ž"], &["z"]),
    ("ab?$", &["a", "ab"], &["abb"]),
    ("$", &[""], &["\n"]),
    ("a$$", &["a"], &["a\n"]),
    ("", &[""], &["a"]),
    (".*", &["", "a"], &["a\n"]),
];

#[test]
fn patterns_match_as_pythons_fullmatch_does() {
    for (python, yes, no) in TABLE {
        let pattern = Pattern::parse(python).unwrap_or_else(|error| panic!("{python:?}: {error}"));
        for text in *yes {
            assert!(pattern.matches(text), "{python:?} should match {text:?}");
        }
        for text in *no {
            assert!(!pattern.matches(text), "{python:?} should not match {text:?}");
        }
        assert_eq!(pattern.source(), *python);
    }
}

#[test]
fn what_python_refuses_is_refused_with_the_column() {
    let table: &[(&str, usize)] = &[
        ("(ab", 1),
        ("a(b(c)", 2),
        ("ab)", 3),
        ("a[bc", 2),
        ("[]", 1),
        (r"a[\", 2),
        (r"ab\", 3),
        (r"a\y", 2),
        (r"\p{L}", 1),
        (r"\xg1", 1),
        (r"\u12", 1),
        (r"\UFFFFFFFF", 1),
        (r"\uD800", 1),
        (r"\777", 1),
        (r"[\9]", 2),
        ("*a", 1),
        ("a|*", 3),
        ("(+)", 2),
        ("^*", 2),
        ("a**", 3),
        ("a{2}{3}", 5),
        ("a{3,2}", 2),
        ("a{99999999999}", 2),
        ("[z-a]", 2),
        ("[a--]", 2),
        (r"[a-\d]", 2),
        (r"[\d-z]", 2),
        ("a(?i)b", 2),
        ("(?k)", 3),
        ("(?i", 4),
        ("(?-i)a", 5),
        ("(?L)a", 3),
        ("(?au)a", 4),
        ("(?P<1a>x)", 1),
        ("(?P<a>x)(?P<a>y)", 9),
        ("(?P<a", 1),
        ("(?Px)", 1),
        ("(?#abc", 1),
        ("(?", 1),
        ("žž(", 3),
    ];
    for (python, column) in table {
        match Pattern::parse(python) {
            Ok(_) => panic!("{python:?} was accepted"),
            Err(error) => assert_eq!(error.column, *column, "{python:?}: {error}"),
        }
    }
}

#[test]
fn what_needs_a_backtracking_engine_is_named_as_not_yet_supported() {
    let table: &[(&str, usize)] = &[
        ("a(?=b)b", 2),
        ("(?!b)a", 1),
        ("(?<=b)a", 1),
        ("(?<!b)a", 1),
        (r"(a)\1", 4),
        ("(?P<n>a)(?P=n)", 9),
        ("(?>a)", 1),
        ("(a)?(?(1)b|c)", 5),
        ("a++", 2),
        ("a{2}+", 2),
        (r"\N{DIGIT ONE}", 1),
        ("a$\n", 2),
        ("(a$)b", 3),
        ("(a$|x)b", 3),
        (r"(\n|a$)+", 6),
        ("(?ai)a", 4),
    ];
    for (python, column) in table {
        let error = Pattern::parse(python).expect_err(python);
        assert!(error.message.ends_with("not yet supported"), "{python:?}: {error}");
        assert_eq!(error.column, *column, "{python:?}: {error}");
    }
}

#[test]
fn a_pattern_that_would_fill_the_memory_is_refused() {
    let error = Pattern::parse(r"(\w{999}){999}").unwrap_err();
    assert_eq!(error.to_string(), "column 1: the pattern is too large once its repetitions are written out");
}

#[test]
fn everybody_is_the_empty_pattern_and_dot_star_only() {
    assert!(Pattern::is_everybody("") && Pattern::is_everybody(".*"));
    assert!(!Pattern::is_everybody("^.*$") && !Pattern::is_everybody(" "));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_translator_panic(python in r"[\\(){}\[\]|*+?.^$:!<=>#PimsxuaL\-,0-9a-zA-Z& \nž]{0,24}") {
        if let Ok(pattern) = Pattern::parse(&python) {
            pattern.matches("abc");
        }
    }

    /// What the translator lets through, the engine takes: its last-resort message is never seen.
    #[test]
    fn whatever_is_translated_compiles(python in r"[\\(){}\[\]|*+?.^$:#Pimsxuab\-,0-9 &~]{0,16}") {
        if let Err(error) = Pattern::parse(&python) {
            proptest::prop_assert!(!error.message.contains("cannot be translated"), "{python:?}");
        }
    }
}
