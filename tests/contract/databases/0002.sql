BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('0002');
CREATE TABLE attempts (
	job INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	gpus DOUBLE NOT NULL, 
	gpu_type TEXT NOT NULL, 
	placed DOUBLE NOT NULL, 
	pieces JSON NOT NULL, 
	started DOUBLE, 
	stopping DOUBLE, 
	stop_cause TEXT NOT NULL, 
	ended DOUBLE, 
	result TEXT NOT NULL, 
	exit_code INTEGER, 
	message TEXT NOT NULL, 
	ranks JSON, 
	checkpoint TEXT, 
	lost_work DOUBLE, 
	CONSTRAINT pk_attempts PRIMARY KEY (job, attempt), 
	CONSTRAINT fk_attempts_job_jobs FOREIGN KEY(job) REFERENCES jobs (id)
);
INSERT INTO "attempts" VALUES(1,1,1.0,'H100',1000000003.0,'[["node-a",0,1,0,-1]]',NULL,NULL,'',1000000010.0,'succeeded',0,'',NULL,NULL,NULL);
INSERT INTO "attempts" VALUES(3,1,2.0,'H100',1000000003.0,'[["node-a",0,2,0,-1]]',1000000004.0,NULL,'',NULL,'',NULL,'','[{"rank":0,"node":"node-a","address":"10.0.0.1","gpus":[0,1],"pid":4242,"log":"/logs/3/0"}]',NULL,NULL);
CREATE TABLE decisions (
	seq INTEGER NOT NULL, 
	time DOUBLE NOT NULL, 
	policy TEXT NOT NULL, 
	waiting_jobs INTEGER NOT NULL, 
	free_gpus INTEGER NOT NULL, 
	starts JSON NOT NULL, 
	preemptions JSON NOT NULL, 
	waiting JSON NOT NULL, promises JSON, 
	CONSTRAINT pk_decisions PRIMARY KEY (seq)
);
INSERT INTO "decisions" VALUES(1,1000000003.0,'binpack/1',3,8,'[1,3]','[]','[[{"num_nodes":2,"gpus":8,"labels":[["zone","a"]]},["InsufficientGPUs",16.0,5.0,5,0]]]',NULL);
CREATE TABLE events (
	seq INTEGER NOT NULL, 
	time DOUBLE NOT NULL, 
	kind TEXT NOT NULL, 
	job INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	data JSON, 
	CONSTRAINT pk_events PRIMARY KEY (seq)
);
INSERT INTO "events" VALUES(1,1000000000.0,'submitted',1,0,'{"uid":"00X3AAA40020WDQ4QKP68XMXCQ","name":"done","queue":"default","user":"ada","priority":50,"state":"QUEUED","submitted":1000000000.0,"estimate":60.0,"limit":null,"preemptible":false,"shape":{"num_nodes":1,"gpus":1}}');
INSERT INTO "events" VALUES(2,1000000001.0,'submitted',2,0,'{"uid":"00X3AAA4Z88BV5WNNTY3TNRYM7","name":"waits","queue":"research","user":"bob","priority":80,"state":"QUEUED","submitted":1000000001.0,"estimate":null,"limit":3600.0,"preemptible":false,"shape":{"num_nodes":2,"gpus":8,"labels":[["zone","a"]]}}');
INSERT INTO "events" VALUES(3,1000000002.0,'submitted',3,0,'{"uid":"00X3AAA5YG3QDW22QP0J7P5R8N","name":"runs","queue":"default","user":"ada","priority":50,"state":"QUEUED","submitted":1000000002.0,"estimate":null,"limit":null,"preemptible":true,"shape":{"num_nodes":1,"gpus":2,"gpu_types":["H100"]}}');
INSERT INTO "events" VALUES(4,1000000003.0,'placed',1,1,'{"pieces":[["node-a",0,1,0,-1]]}');
INSERT INTO "events" VALUES(5,1000000003.0,'placed',3,1,'{"pieces":[["node-a",0,2,0,-1]]}');
INSERT INTO "events" VALUES(6,1000000004.0,'started',3,1,'{"ranks":[{"rank":0,"node":"node-a","address":"10.0.0.1","gpus":[0,1],"pid":4242,"log":"/logs/3/0"}]}');
INSERT INTO "events" VALUES(7,1000000010.0,'succeeded',1,1,'{"exit_code":0}');
CREATE TABLE gpu_rollups (
	period INTEGER NOT NULL, 
	start INTEGER NOT NULL, 
	node INTEGER NOT NULL, 
	gpu INTEGER NOT NULL, 
	job INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	samples INTEGER NOT NULL, 
	measured INTEGER NOT NULL, 
	utilization_mean DOUBLE, 
	utilization_max DOUBLE, 
	memory_mean DOUBLE, 
	memory_max INTEGER, 
	power_mean DOUBLE, 
	temperature_max DOUBLE, 
	seconds DOUBLE NOT NULL, 
	measured_seconds DOUBLE NOT NULL, 
	used_seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_gpu_rollups PRIMARY KEY (period, start, node, gpu, job, attempt)
)
 WITHOUT ROWID

;
INSERT INTO "gpu_rollups" VALUES(60,999999960,0,0,3,1,1,1,0.5,0.5,1073741824.0,1073741824,300.0,60.0,5.0,5.0,2.5);
CREATE TABLE gpu_samples (
	time DOUBLE NOT NULL, 
	node INTEGER NOT NULL, 
	gpu INTEGER NOT NULL, 
	job INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	seconds DOUBLE NOT NULL, 
	utilization DOUBLE, 
	memory_used INTEGER, 
	power DOUBLE, 
	temperature DOUBLE, 
	processes JSON, 
	CONSTRAINT pk_gpu_samples PRIMARY KEY (time, node, gpu)
)
 WITHOUT ROWID

;
INSERT INTO "gpu_samples" VALUES(1000000005.0,0,0,3,1,5.0,0.5,1073741824,300.0,60.0,'[{"pid":4242,"memory":1073741824}]');
CREATE TABLE gpus (
	node INTEGER NOT NULL, 
	gpu INTEGER NOT NULL, 
	uuid TEXT NOT NULL, 
	name TEXT NOT NULL, 
	memory_total INTEGER, 
	CONSTRAINT pk_gpus PRIMARY KEY (node, gpu), 
	CONSTRAINT fk_gpus_node_nodes FOREIGN KEY(node) REFERENCES nodes (id)
);
INSERT INTO "gpus" VALUES(0,0,'GPU-0','H100',85899345920);
CREATE TABLE host_samples (
	node INTEGER NOT NULL, 
	time DOUBLE NOT NULL, 
	data JSON NOT NULL, 
	CONSTRAINT pk_host_samples PRIMARY KEY (node), 
	CONSTRAINT fk_host_samples_node_nodes FOREIGN KEY(node) REFERENCES nodes (id)
);
INSERT INTO "host_samples" VALUES(0,1000000005.0,'{"cpu":2.0}');
CREATE TABLE job_labels (
	job INTEGER NOT NULL, 
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_job_labels PRIMARY KEY (job, "key"), 
	CONSTRAINT fk_job_labels_job_jobs FOREIGN KEY(job) REFERENCES jobs (id)
);
INSERT INTO "job_labels" VALUES(3,'ticket','ML-42');
CREATE TABLE job_rollups (
	period INTEGER NOT NULL, 
	start INTEGER NOT NULL, 
	node INTEGER NOT NULL, 
	job INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	samples INTEGER NOT NULL, 
	cpu_mean DOUBLE, 
	cpu_max DOUBLE, 
	memory_mean DOUBLE, 
	memory_max INTEGER, 
	processes_max INTEGER, 
	seconds DOUBLE NOT NULL, 
	CONSTRAINT pk_job_rollups PRIMARY KEY (period, start, node, job, attempt)
)
 WITHOUT ROWID

;
INSERT INTO "job_rollups" VALUES(60,999999960,0,3,1,1,1.5,1.5,2147483648.0,2147483648,3,5.0);
CREATE TABLE job_samples (
	time DOUBLE NOT NULL, 
	node INTEGER NOT NULL, 
	job INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	seconds DOUBLE NOT NULL, 
	cpu DOUBLE, 
	memory INTEGER, 
	processes INTEGER, 
	CONSTRAINT pk_job_samples PRIMARY KEY (time, node, job, attempt)
)
 WITHOUT ROWID

;
INSERT INTO "job_samples" VALUES(1000000005.0,0,3,1,5.0,1.5,2147483648,3);
CREATE TABLE job_secrets (
	job INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	value BLOB NOT NULL, 
	CONSTRAINT pk_job_secrets PRIMARY KEY (job, name), 
	CONSTRAINT fk_job_secrets_job_jobs FOREIGN KEY(job) REFERENCES jobs (id)
);
INSERT INTO "job_secrets" VALUES(3,'TOKEN',X'6E6F742D612D7265616C2D6F6E65');
CREATE TABLE jobs (
	id INTEGER NOT NULL, 
	uid TEXT NOT NULL, 
	user TEXT NOT NULL, 
	spec TEXT, 
	source TEXT, 
	submitted DOUBLE NOT NULL, 
	name TEXT NOT NULL, 
	queue TEXT NOT NULL, 
	priority INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	active BOOLEAN NOT NULL, 
	reason TEXT NOT NULL, 
	shape JSON NOT NULL, 
	gpus DOUBLE NOT NULL, 
	queued DOUBLE NOT NULL, 
	not_before DOUBLE NOT NULL, 
	placed DOUBLE NOT NULL, 
	started DOUBLE, 
	first_start DOUBLE, 
	ended DOUBLE, 
	attempt INTEGER NOT NULL, 
	failures INTEGER NOT NULL, 
	placement JSON, 
	stop_cause TEXT NOT NULL, 
	exit_code INTEGER, 
	gpu_seconds DOUBLE NOT NULL, 
	estimate DOUBLE, 
	"limit" DOUBLE, 
	preemptible BOOLEAN NOT NULL, executed DOUBLE DEFAULT '0' NOT NULL, min_runtime DOUBLE DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_jobs PRIMARY KEY (id)
);
INSERT INTO "jobs" VALUES(1,'00X3AAA40020WDQ4QKP68XMXCQ','ada',NULL,NULL,1000000000.0,'done','default',50,'SUCCEEDED',0,'','{"num_nodes":1,"gpus":1}',1.0,1000000000.0,0.0,1000000003.0,NULL,1000000003.0,1000000010.0,1,0,'[["node-a",0,1,0,-1]]','',0,7.0,60.0,NULL,0,0.0,0.0);
INSERT INTO "jobs" VALUES(2,'00X3AAA4Z88BV5WNNTY3TNRYM7','bob',NULL,NULL,1000000001.0,'waits','research',80,'QUEUED',1,'','{"num_nodes":2,"gpus":8,"labels":[["zone","a"]]}',16.0,1000000001.0,0.0,0.0,NULL,NULL,NULL,0,0,NULL,'',NULL,0.0,NULL,3600.0,0,0.0,0.0);
INSERT INTO "jobs" VALUES(3,'00X3AAA5YG3QDW22QP0J7P5R8N','ada','{"annotations":{"ticket":"ML-42"},"apiVersion":"gpusched/v1","checkpoint":{"dir":null,"grace":60.0,"signal":"SIGTERM"},"env":{},"estimated_duration":null,"hold":false,"kind":"command","labels":{},"max_duration":null,"min_runtime":0.0,"name":"runs","num_nodes":1,"placement":{"nodes":"any"},"preemptible":false,"priority":50,"queue":"default","resources":{"accelerators":{"count":2.0,"ranked":true,"types":["H100"]},"cpus":1.0,"memory":0},"retry":{"limit":3,"on":["lost"]},"run":"python train.py","secrets":["TOKEN"],"setup":"","user":null,"workdir":null}','',1000000002.0,'runs','default',50,'RUNNING',1,'','{"num_nodes":1,"gpus":2,"gpu_types":["H100"]}',2.0,1000000002.0,0.0,1000000003.0,1000000004.0,1000000003.0,NULL,1,0,'[["node-a",0,2,0,-1]]','',NULL,0.0,NULL,NULL,1,0.0,0.0);
CREATE TABLE leases (
	name TEXT NOT NULL, 
	owner TEXT NOT NULL, 
	host TEXT NOT NULL, 
	pid INTEGER NOT NULL, 
	since DOUBLE NOT NULL, 
	expires DOUBLE NOT NULL, 
	term INTEGER NOT NULL, 
	CONSTRAINT pk_leases PRIMARY KEY (name)
);
INSERT INTO "leases" VALUES('control-plane','first','vm',21959,1000000000.0,1000000015.0,1);
CREATE TABLE meta (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_meta PRIMARY KEY ("key")
);
INSERT INTO "meta" VALUES('application','gpusched');
INSERT INTO "meta" VALUES('rolled:60','1000000140');
INSERT INTO "meta" VALUES('rolled:3600','999997200');
INSERT INTO "meta" VALUES('cut:raw','999975600.0');
CREATE TABLE nodes (
	id INTEGER NOT NULL, 
	name TEXT NOT NULL, 
	node JSON NOT NULL, 
	present BOOLEAN NOT NULL, 
	first_seen DOUBLE NOT NULL, 
	changed DOUBLE NOT NULL, 
	CONSTRAINT pk_nodes PRIMARY KEY (id)
);
INSERT INTO "nodes" VALUES(0,'node-a','{"name":"node-a","gpus":8,"gpu_type":"H100","cpu_milli":96000,"memory":549755813888,"labels":{"zone":"a"},"address":"10.0.0.1","schedulable":true,"why":""}',1,1000000000.0,1000000000.0);
CREATE TABLE queue_versions (
	number INTEGER NOT NULL, 
	time DOUBLE NOT NULL, 
	user TEXT NOT NULL, 
	note TEXT NOT NULL, 
	file TEXT NOT NULL, 
	text TEXT NOT NULL, 
	CONSTRAINT pk_queue_versions PRIMARY KEY (number)
);
CREATE TABLE shape_reasons (
	shape TEXT NOT NULL, 
	decision INTEGER NOT NULL, 
	time DOUBLE NOT NULL, 
	policy TEXT NOT NULL, 
	token TEXT NOT NULL, 
	needs DOUBLE NOT NULL, 
	free DOUBLE NOT NULL, 
	largest INTEGER NOT NULL, 
	behind INTEGER NOT NULL, 
	CONSTRAINT pk_shape_reasons PRIMARY KEY (shape)
);
INSERT INTO "shape_reasons" VALUES('{"num_nodes":2,"gpus":8,"labels":[["zone","a"]]}',1,1000000003.0,'binpack/1','InsufficientGPUs',16.0,5.0,5,0);
CREATE TABLE users (
	name TEXT NOT NULL, 
	settings JSON NOT NULL, 
	changed DOUBLE NOT NULL, 
	CONSTRAINT pk_users PRIMARY KEY (name)
);
CREATE INDEX ix_events_job_seq ON events (job, seq);
CREATE INDEX ix_gpu_rollups_job_period_start ON gpu_rollups (job, period, start);
CREATE INDEX ix_job_rollups_job_period_start ON job_rollups (job, period, start);
CREATE INDEX ix_jobs_name_id ON jobs (name, id);
CREATE INDEX ix_jobs_queue_active_id ON jobs (queue, active, id);
CREATE INDEX ix_jobs_state_id ON jobs (state, id);
CREATE INDEX ix_jobs_state_priority_id ON jobs (state, priority, id);
CREATE INDEX ix_jobs_submitted ON jobs (submitted);
CREATE UNIQUE INDEX ix_jobs_uid ON jobs (uid);
CREATE INDEX ix_jobs_user_active_id ON jobs (user, active, id);
CREATE UNIQUE INDEX ix_nodes_name ON nodes (name);
CREATE INDEX ix_attempts_ended ON attempts (ended);
CREATE INDEX ix_job_labels_key_value_job ON job_labels ("key", value, job);
COMMIT;
