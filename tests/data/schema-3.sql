PRAGMA user_version=3;
BEGIN TRANSACTION;
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
INSERT INTO "_sqlite_migrations" VALUES(1,'semcache','0001_entries','2026-11-26 17:24:00.219736+00:00');
INSERT INTO "_sqlite_migrations" VALUES(2,'semcache','0002_observations','2026-11-26 17:24:00.220306+00:00');
INSERT INTO "_sqlite_migrations" VALUES(3,'semcache','0003_lifetimes','2026-11-28 18:32:34.217653+00:00');
CREATE TABLE "counters" (
   "name" TEXT PRIMARY KEY,
   "value" REAL
);
INSERT INTO "counters" VALUES('hits:exact',2.0);
CREATE TABLE deletions (sequence INTEGER PRIMARY KEY AUTOINCREMENT, entry_id INTEGER NOT NULL);
INSERT INTO "deletions" VALUES(1,5);
CREATE TABLE "embeddings" (
   "entry_id" INTEGER PRIMARY KEY,
   "scope" BLOB,
   "vector" BLOB
);
INSERT INTO "embeddings" VALUES(1,X'7373737373737373737373737373737373737373737373737373737373737373',X'ABEAFCBE51D750BFA5A81CBE149A843E');
INSERT INTO "embeddings" VALUES(2,X'7373737373737373737373737373737373737373737373737373737373737373',X'A104433F35A9963D35BDBDBEE9B706BF');
INSERT INTO "embeddings" VALUES(4,X'7373737373737373737373737373737373737373737373737373737373737373',X'5D75AE3EF6733E3FB338FE3DF0AE0FBF');
CREATE TABLE entries ( id INTEGER PRIMARY KEY AUTOINCREMENT, exact_key BLOB NOT NULL UNIQUE, scope BLOB NOT NULL, namespace TEXT NOT NULL, model TEXT NOT NULL, question TEXT, summary TEXT NOT NULL, text TEXT NOT NULL, extra TEXT, prompt_tokens INTEGER, completion_tokens INTEGER, cost_usd REAL, key_version INTEGER NOT NULL, created_at REAL NOT NULL, expires_at REAL, last_hit_at REAL, hits INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL, stale_at REAL, sliding REAL);
INSERT INTO "entries" VALUES(1,X'0101010101010101010101010101010101010101010101010101010101010101',X'7373737373737373737373737373737373737373737373737373737373737373','default','m','question 1','{"n":1}','answer 1','{"finish_reason":"stop"}',3,4,0.01,1,1001.0,NULL,2000.0,2,65,NULL,NULL);
INSERT INTO "entries" VALUES(2,X'0202020202020202020202020202020202020202020202020202020202020202',X'7373737373737373737373737373737373737373737373737373737373737373','default','m','question 2','{"n":2}','answer 2','{"finish_reason":"stop"}',3,4,0.01,1,1002.0,9000000000.0,NULL,0,65,NULL,NULL);
INSERT INTO "entries" VALUES(3,X'0303030303030303030303030303030303030303030303030303030303030303',X'7373737373737373737373737373737373737373737373737373737373737373','default','m','question 3','{"n":3}','answer 3','{"finish_reason":"stop"}',3,4,0.01,1,1003.0,NULL,NULL,0,49,NULL,NULL);
INSERT INTO "entries" VALUES(4,X'0404040404040404040404040404040404040404040404040404040404040404',X'7373737373737373737373737373737373737373737373737373737373737373','tenant','m','question 4','{"n":4}','answer 4','{"finish_reason":"stop"}',3,4,0.01,1,1004.0,NULL,NULL,0,65,NULL,NULL);
CREATE TABLE "meta" (
   "name" TEXT PRIMARY KEY,
   "value" TEXT
);
INSERT INTO "meta" VALUES('store_id','3c22b6c05f8a723d7122d8df4ea60021');
INSERT INTO "meta" VALUES('fingerprint','an/embedder');
INSERT INTO "meta" VALUES('dimension','4');
CREATE TABLE namespaces (namespace TEXT PRIMARY KEY, entries INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO "namespaces" VALUES('default',3,179);
INSERT INTO "namespaces" VALUES('tenant',1,65);
CREATE TABLE observations ( id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, writer TEXT NOT NULL, kind TEXT NOT NULL, namespace TEXT NOT NULL, entry_id INTEGER NOT NULL, other_id INTEGER, right INTEGER NOT NULL, expected REAL NOT NULL, features TEXT NOT NULL);
INSERT INTO "observations" VALUES(1,100.0,'w','miss','default',1,NULL,1,0.75,'[1.0, 2.5]');
INSERT INTO "observations" VALUES(2,101.0,'w','miss','n',1,NULL,1,0.75,'[1.0, 2.5]');
CREATE TABLE serves ( id TEXT PRIMARY KEY, at REAL NOT NULL, namespace TEXT NOT NULL, entry_id INTEGER NOT NULL, question TEXT NOT NULL, similarity REAL NOT NULL, chance REAL NOT NULL, features TEXT NOT NULL, verdict INTEGER) WITHOUT ROWID;
INSERT INTO "serves" VALUES('id1',100.0,'default',1,'q',0.9,0.97,'[1.0]',NULL);
INSERT INTO "serves" VALUES('id2',102.0,'n',2,'q2',0.9,0.97,'[1.0]',NULL);
CREATE TABLE "tags" (
   "tag" TEXT,
   "entry_id" INTEGER,
   PRIMARY KEY ("tag", "entry_id")
);
INSERT INTO "tags" VALUES('a',1);
INSERT INTO "tags" VALUES('b',1);
CREATE TABLE "totals" (
   "id" INTEGER PRIMARY KEY,
   "entries" INTEGER,
   "bytes" INTEGER
);
INSERT INTO "totals" VALUES(1,4,244);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
CREATE INDEX "idx_entries_namespace_model"
    ON "entries" ("namespace", "model");
CREATE INDEX entries_expiry ON entries(expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX "idx_tags_entry_id"
    ON "tags" ("entry_id");
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN UPDATE totals SET entries = entries + 1, bytes = bytes + new.bytes; END;
CREATE TRIGGER entry_deleted AFTER DELETE ON entries BEGIN DELETE FROM embeddings WHERE entry_id = old.id; DELETE FROM tags WHERE entry_id = old.id; INSERT INTO deletions(entry_id) VALUES (old.id); UPDATE totals SET entries = entries - 1, bytes = bytes - old.bytes; END;
CREATE INDEX "idx_serves_at"
    ON "serves" ("at");
CREATE INDEX "idx_serves_entry_id"
    ON "serves" ("entry_id");
CREATE TRIGGER served_entry_deleted AFTER DELETE ON entries BEGIN DELETE FROM serves WHERE entry_id = old.id; END;
CREATE TRIGGER entry_added_to_namespace AFTER INSERT ON entries BEGIN INSERT INTO namespaces SELECT new.namespace, 0, 0  WHERE NOT EXISTS (SELECT 1 FROM namespaces WHERE namespace = new.namespace); UPDATE namespaces SET entries = entries + 1, bytes = bytes + new.bytes  WHERE namespace = new.namespace; END;
CREATE TRIGGER entry_deleted_from_namespace AFTER DELETE ON entries BEGIN UPDATE namespaces SET entries = entries - 1, bytes = bytes - old.bytes  WHERE namespace = old.namespace; DELETE FROM namespaces WHERE namespace = old.namespace AND entries <= 0; END;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('deletions',1);
INSERT INTO "sqlite_sequence" VALUES('entries',5);
INSERT INTO "sqlite_sequence" VALUES('observations',2);
COMMIT;
