-- :users rows of sixteen kinds, the kind being id % 16, and the template user. Digits of a PIN that stands already are the
-- user's id in eight digits, so that none of six is taken.
SET search_path = tenant_1;

INSERT INTO ou (id, number, name) VALUES (13, 300, 'Staff');

INSERT INTO users (id, login, name, surname, email, flag, sign, ou_id, ou_number, source, pass)
  SELECT g,
    CASE WHEN k IN (12, 13, 15) THEN 'visitor' || g || '@visitors.example' WHEN k = 2 THEN 'Role ' || g WHEN k = 4 THEN 'nomail' || g
         WHEN k = 5 THEN 'badmail' || g ELSE 'user' || g END,
    'Name' || g, 'O''Surname' || g,
    CASE WHEN k IN (2, 4, 12, 13, 15) THEN '' WHEN k = 5 THEN 'a@b, c@example.com' WHEN k = 14 THEN 'user' || g || '@example.org'
         ELSE 'user' || g || '@example.com' END,
    CASE k WHEN 2 THEN 163840 WHEN 3 THEN 16385 ELSE 1 END,
    CASE WHEN k = 1 THEN 'ldap://directory' END,
    CASE WHEN k = 12 THEN 11 WHEN k = 13 THEN 12 WHEN g % 3 = 0 THEN 13 ELSE 0 END,
    CASE WHEN k = 12 THEN 100 WHEN k = 13 THEN 200 WHEN g % 3 = 0 THEN 300 ELSE 0 END,
    CASE WHEN k = 1 THEN 'LDAP' ELSE 'INTERNAL_DATABASE' END,
    '$2a$12$keepthis' || g
  FROM (SELECT g, g % 16 k FROM generate_series(1, :users) g) x;
SELECT setval('users_id_seq', :users);
INSERT INTO users (login, email, ou_id, ou_number) VALUES ('template', 'template@example.com', 11, 100);

-- physical cards: kind 6 has one, kind 11 one that looks like a hash, every tenth user of the others one more
INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag) SELECT g, 'CARD' || lpad(g::text, 9, '0'), 0, 0 FROM generate_series(1, :users) g WHERE g % 16 = 6 OR g % 10 = 0;
INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag) SELECT g, md5('card' || g), 0, 0 FROM generate_series(1, :users) g WHERE g % 16 = 11;
-- PINs: 7 valid, 8 expired, 9 without an end, 10 one expired and one valid, 13 valid
INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag, pin_expiration_date, dual_pin)
  SELECT g, 'PIN' || md5(lpad(g::text, 8, '0')), 0, 0,
    CASE g % 16 WHEN 8 THEN localtimestamp - interval '1 hour' WHEN 9 THEN NULL WHEN 10 THEN localtimestamp - interval '3 days'
                ELSE localtimestamp + interval '90 days' END,
    'keep' || g
  FROM generate_series(1, :users) g WHERE g % 16 IN (7, 8, 9, 10, 13);
INSERT INTO users_cards (user_id, card, replicated_card, replicated_card_flag) SELECT g, 'PIN' || md5('second' || g), 0, 0 FROM generate_series(1, :users) g WHERE g % 16 = 10;
INSERT INTO users_aliases SELECT id, 'alias' || id FROM users WHERE id % 50 = 0;
ANALYZE;

-- what stood before, for the comparison row by row
CREATE SCHEMA before;
CREATE TABLE before.users AS TABLE users;
CREATE TABLE before.users_cards AS TABLE users_cards;
CREATE TABLE before.users_aliases AS TABLE users_aliases;
CREATE TABLE before.ou AS TABLE ou;
CREATE TABLE before.users_roles AS TABLE users_roles;
