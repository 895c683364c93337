-- The vendor's tables, as far as they are known. Names that are a guess are marked.
CREATE SCHEMA tenant_1;
CREATE TABLE tenant_1.users (
  id            bigserial PRIMARY KEY,
  login         varchar(255) NOT NULL,
  pass          varchar(255) DEFAULT '',
  name          varchar(255) DEFAULT '',
  surname       varchar(255) DEFAULT '',
  sign          varchar(255),
  email         varchar(255) DEFAULT '',
  flag          integer NOT NULL DEFAULT 1,
  ip            varchar(64) DEFAULT '',
  card_num      varchar(255) DEFAULT '',
  ou_id         bigint NOT NULL DEFAULT 0,
  ou_number     integer NOT NULL DEFAULT 0,
  ext_id        varchar(255),
  login_ascii   varchar(255),
  name_ascii    varchar(255),
  surname_ascii varchar(255),
  replicated    integer NOT NULL DEFAULT 0,
  homedir       varchar(255),
  ext_name      varchar(255),
  safeq_oid     integer,
  tenant_id     bigint,
  source        varchar(64) DEFAULT 'INTERNAL_DATABASE',
  user_note     varchar(1024),
  puk           varchar(255)                                            -- guess
);
CREATE INDEX users_login_idx ON tenant_1.users (login);                 -- guess
CREATE TABLE tenant_1.users_cards (
  id                   bigserial PRIMARY KEY,                           -- guess
  user_id              bigint NOT NULL REFERENCES tenant_1.users (id),
  card                 varchar(255) NOT NULL,
  dual_pin             varchar(255),
  replicated_card      integer NOT NULL,
  replicated_card_from varchar(255),
  replicated_card_flag integer NOT NULL,
  pin_expiration_date  timestamp                                        -- type: guess
);
CREATE INDEX users_cards_card_idx ON tenant_1.users_cards (card);       -- guess
CREATE TABLE tenant_1.users_aliases (
  user_id bigint NOT NULL REFERENCES tenant_1.users (id),
  alias   varchar(255) NOT NULL
);
CREATE TABLE tenant_1.ou (                                              -- guess
  id      bigserial PRIMARY KEY,
  number  integer NOT NULL UNIQUE,
  name    varchar(255) NOT NULL
);
CREATE TABLE tenant_1.users_roles (                                     -- guess
  user_id bigint NOT NULL REFERENCES tenant_1.users (id),
  role_id bigint NOT NULL REFERENCES tenant_1.users (id),
  PRIMARY KEY (user_id, role_id)
);
INSERT INTO tenant_1.ou (id, number, name) VALUES (0, 0, 'Default'), (11, 100, 'Needs PIN'), (12, 200, 'Has PIN');
GRANT USAGE ON SCHEMA tenant_1 TO credkeeper, reader, locked;
GRANT SELECT ON ALL TABLES IN SCHEMA tenant_1 TO credkeeper, reader, locked;
GRANT INSERT, UPDATE, DELETE ON tenant_1.users_cards TO credkeeper;
GRANT DELETE ON tenant_1.users_roles TO credkeeper;
GRANT UPDATE (ou_id, ou_number, puk, pass) ON tenant_1.users TO credkeeper;
GRANT USAGE ON SEQUENCE tenant_1.users_cards_id_seq TO credkeeper;
