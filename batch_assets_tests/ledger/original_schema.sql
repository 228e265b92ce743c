-- A ledger as the first version wrote it: never changed, so that every later one can open it.
BEGIN TRANSACTION;
CREATE TABLE ledger_counters (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
INSERT INTO "ledger_counters" VALUES('revision',1795167250569);
CREATE TABLE ledger_files (
            pipeline TEXT NOT NULL, path TEXT NOT NULL, size BIGINT NOT NULL, version TEXT NOT NULL,
            generation BIGINT NOT NULL, state TEXT NOT NULL, PRIMARY KEY (pipeline, path));
INSERT INTO "ledger_files" VALUES('texts','a.jsonl',15000,'v1',1,'planned');
CREATE TABLE ledger_leases (
            name TEXT PRIMARY KEY, fence BIGINT NOT NULL, holder TEXT,
            seconds DOUBLE PRECISION NOT NULL, lease_until DOUBLE PRECISION);
CREATE TABLE ledger_migrations (name TEXT PRIMARY KEY);
INSERT INTO "ledger_migrations" VALUES('m001_tables');
CREATE TABLE ledger_pipelines (
            name TEXT PRIMARY KEY, root TEXT NOT NULL, epoch BIGINT NOT NULL, fingerprint TEXT,
            generation BIGINT NOT NULL DEFAULT 0, revision BIGINT NOT NULL DEFAULT 0,
            automation BOOLEAN NOT NULL DEFAULT FALSE, stop_requested BOOLEAN NOT NULL DEFAULT FALSE);
INSERT INTO "ledger_pipelines" VALUES('texts','s3://bucket/out',1,'f1',1,1795167250569,0,0);
CREATE TABLE ledger_runs (
            run_id TEXT PRIMARY KEY, pipeline TEXT NOT NULL, host TEXT NOT NULL,
            holder TEXT NOT NULL);
CREATE TABLE ledger_shards (
            pipeline TEXT NOT NULL, key TEXT NOT NULL,
            generation BIGINT NOT NULL, ordinal BIGINT NOT NULL,
            state TEXT NOT NULL, superseded BOOLEAN NOT NULL DEFAULT FALSE,
            records BIGINT NOT NULL, bytes BIGINT NOT NULL, rejected BIGINT NOT NULL DEFAULT 0,
            embedded BIGINT NOT NULL DEFAULT 0, failed BIGINT NOT NULL DEFAULT 0, tokens BIGINT,
            attempt BIGINT NOT NULL DEFAULT 0, fence BIGINT NOT NULL,
            outdated_fence BIGINT NOT NULL DEFAULT -1, fingerprint TEXT, holder TEXT,
            lease_until DOUBLE PRECISION, run_id TEXT, error TEXT, picture TEXT, picture_due BIGINT,
            revision BIGINT NOT NULL, updated_at DOUBLE PRECISION NOT NULL, PRIMARY KEY (pipeline, key));
INSERT INTO "ledger_shards" VALUES('texts','g0001-00000',1,0,'collected',0,100,5000,2,97,1,1000,0,1,-1,'f1',NULL,NULL,NULL,NULL,NULL,1795167250569,1795167250569,1700000000.0);
INSERT INTO "ledger_shards" VALUES('texts','g0001-00001',1,1,'ready',0,100,5000,0,0,0,NULL,0,0,-1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1795167250567,1700000000.0);
INSERT INTO "ledger_shards" VALUES('texts','g0001-00002',1,2,'ready',0,100,5000,0,0,0,NULL,0,0,-1,NULL,NULL,NULL,NULL,NULL,NULL,NULL,1795167250568,1700000000.0);
CREATE TABLE ledger_tallies (
            pipeline TEXT NOT NULL, state TEXT NOT NULL, fingerprint TEXT NOT NULL,
            shards BIGINT NOT NULL, records BIGINT NOT NULL, bytes BIGINT NOT NULL,
            rejected BIGINT NOT NULL, embedded BIGINT NOT NULL, failed BIGINT NOT NULL,
            tokens BIGINT NOT NULL, PRIMARY KEY (pipeline, state, fingerprint));
INSERT INTO "ledger_tallies" VALUES('texts','planned','',0,0,0,0,0,0,0);
INSERT INTO "ledger_tallies" VALUES('texts','prepared','',0,0,0,0,0,0,0);
INSERT INTO "ledger_tallies" VALUES('texts','ready','',2,200,10000,0,0,0,0);
INSERT INTO "ledger_tallies" VALUES('texts','collected','f1',1,100,5000,2,97,1,1000);
CREATE INDEX ledger_shards_by_state ON ledger_shards (pipeline, superseded, state, key);
CREATE INDEX ledger_shards_by_revision ON ledger_shards (revision);
CREATE INDEX ledger_shards_by_pipeline_revision ON ledger_shards (pipeline, revision);
CREATE INDEX ledger_shards_by_holder ON ledger_shards (holder) WHERE holder IS NOT NULL;
CREATE INDEX ledger_shards_by_picture_due ON ledger_shards (picture_due)
            WHERE picture_due IS NOT NULL;
CREATE INDEX ledger_runs_by_host ON ledger_runs (host);
COMMIT;
