-- The print system's schema as far as it is known (profile safeq6); everything that credkeeper reads or writes, and the
-- columns beside it that must survive.
CREATE SCHEMA tenant_1;
SET search_path = tenant_1;

CREATE TABLE users (
  id bigserial PRIMARY KEY,
  login varchar(255) NOT NULL, pass varchar(255) DEFAULT '', name varchar(255) DEFAULT '', surname varchar(255) DEFAULT '',
  sign varchar(255), email varchar(255) DEFAULT '', flag integer NOT NULL DEFAULT 1,
  ip varchar(64) DEFAULT '', card_num varchar(255) DEFAULT '',
  ou_id bigint NOT NULL DEFAULT 0, ou_number integer NOT NULL DEFAULT 0,
  ext_id varchar(255), login_ascii varchar(255), name_ascii varchar(255), surname_ascii varchar(255),
  replicated integer NOT NULL DEFAULT 0, homedir varchar(255), ext_name varchar(255), safeq_oid integer,
  tenant_id bigint, source varchar(64) DEFAULT 'INTERNAL_DATABASE', user_note varchar(1024), puk varchar(255)
);
CREATE INDEX users_login_idx ON users (login);
CREATE TABLE users_cards (
  id bigserial PRIMARY KEY,
  user_id bigint NOT NULL REFERENCES users (id),
  card varchar(255) NOT NULL, dual_pin varchar(255),
  replicated_card integer NOT NULL DEFAULT 0, replicated_card_from varchar(255), replicated_card_flag integer NOT NULL DEFAULT 0,
  pin_expiration_date timestamp
);
CREATE INDEX users_cards_card_idx ON users_cards (card);
CREATE INDEX users_cards_user_idx ON users_cards (user_id);
CREATE TABLE users_aliases (user_id bigint NOT NULL REFERENCES users (id), alias varchar(255) NOT NULL);
CREATE TABLE ou (id bigserial PRIMARY KEY, number integer NOT NULL UNIQUE, name varchar(255) NOT NULL);
CREATE TABLE users_roles (
  user_id bigint NOT NULL REFERENCES users (id), role_id bigint NOT NULL REFERENCES users (id), PRIMARY KEY (user_id, role_id)
);
INSERT INTO ou (id, number, name) VALUES (0, 0, 'Default'), (1, 100, 'Needs PIN'), (2, 101, 'Has PIN'), (3, 102, 'Staff');
