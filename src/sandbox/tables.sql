-- The tables of the print system's database, as far as they are known, in SQLite.
PRAGMA journal_mode = WAL;
CREATE TABLE users (
  id            integer PRIMARY KEY AUTOINCREMENT,
  login         text NOT NULL,
  pass          text DEFAULT '',
  name          text DEFAULT '',
  surname       text DEFAULT '',
  sign          text,                               -- where the user logs in; empty: here
  email         text DEFAULT '',
  flag          integer NOT NULL DEFAULT 1,         -- 1 user, 32768 role, 16384 another kind of row
  ip            text DEFAULT '',
  card_num      text DEFAULT '',
  ou_id         integer NOT NULL DEFAULT 0,
  ou_number     integer NOT NULL DEFAULT 0,
  ext_id        text,
  login_ascii   text,
  name_ascii    text,
  surname_ascii text,
  replicated    integer NOT NULL DEFAULT 0,
  homedir       text,
  ext_name      text,
  safeq_oid     integer,
  tenant_id     integer,
  source        text DEFAULT 'INTERNAL_DATABASE',
  user_note     text,
  puk           text
);
CREATE INDEX users_login_idx ON users (login);
CREATE TABLE users_cards (
  id                   integer PRIMARY KEY,
  user_id              integer NOT NULL REFERENCES users (id),
  card                 text NOT NULL,               -- cards and PINs alike
  dual_pin             text,
  replicated_card      integer NOT NULL DEFAULT 0,
  replicated_card_from text,
  replicated_card_flag integer NOT NULL DEFAULT 0,
  pin_expiration_date  text                         -- local time; NULL: never
);
CREATE INDEX users_cards_card_idx ON users_cards (card);
CREATE INDEX users_cards_user_idx ON users_cards (user_id);
CREATE TABLE users_aliases (
  user_id integer NOT NULL REFERENCES users (id),
  alias   text NOT NULL
);
CREATE TABLE ou (
  id     integer PRIMARY KEY,
  number integer NOT NULL UNIQUE,
  name   text NOT NULL
);
CREATE TABLE users_roles (
  user_id integer NOT NULL REFERENCES users (id),
  role_id integer NOT NULL REFERENCES users (id),
  PRIMARY KEY (user_id, role_id)
);
