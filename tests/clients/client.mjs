// What programs written for the JavaScript client do, against the cluster that KUBECONFIG names.
import assert from 'node:assert';
import { PassThrough } from 'node:stream';
import * as k8s from '@kubernetes/client-node';

const namespace = process.argv[2];
const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);

const pod = (name) => ({
  metadata: { name, labels: { app: 'js' } },
  spec: {
    terminationGracePeriodSeconds: 0,
    containers: [{ name: 'c', image: 'busybox:1', command: ['/bin/busybox', 'sleep', '3600'] }],
  },
});

const list = () => core.listNamespacedPod({ namespace, labelSelector: 'app=js' });
const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/pods`, list, 'app=js');
const seen = new Map();
const waiting = [];
const note = (object) => {
  seen.set(object.metadata.name, object.status?.phase);
  for (const { name, phase, done } of waiting) if (seen.get(name) === phase) done();
};
informer.on('add', note);
informer.on('update', note);
informer.on('delete', (object) => note({ metadata: object.metadata, status: { phase: 'gone' } }));
let stopping = false;
informer.on('error', (error) => {
  if (stopping) return;
  console.error(error);
  process.exit(1);
});
const until = (name, phase) =>
  new Promise((done, fail) => {
    if (seen.get(name) === phase) return done();
    waiting.push({ name, phase, done });
    setTimeout(() => fail(new Error(`${name} is ${seen.get(name)}, not ${phase}`)), 60000).unref();
  });

await informer.start();
await core.createNamespacedPod({ namespace, body: pod('one') });
await until('one', 'Running');
assert.equal(informer.get('one', namespace).spec.nodeName, 'node-1');

const out = new PassThrough();
let said = '';
out.on('data', (chunk) => (said += chunk));
const status = await new Promise((done, fail) => {
  const command = ['/bin/busybox', 'sh', '-c', 'echo hello from javascript; exit 3'];
  new k8s.Exec(config).exec(namespace, 'one', 'c', command, out, process.stderr, null, false, done).catch(fail);
});
assert.equal(said.trim(), 'hello from javascript');
assert.equal(status.details.causes[0].message, '3');

const events = [];
const watch = new k8s.Watch(config);
const path = `/api/v1/namespaces/${namespace}/configmaps`;
let three;
const watched = new Promise((done) => (three = done));
const request = await watch.watch(path, {}, (type, object) => {
  if (object.metadata.name === 'js') events.push(type);
  if (events.length === 3) three();
}, () => {});
await core.createNamespacedConfigMap({ namespace, body: { metadata: { name: 'js' }, data: { a: '1' } } });
await core.patchNamespacedConfigMap(
  { namespace, name: 'js', body: { data: { a: '2' } } },
  k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch),
);
await core.deleteNamespacedConfigMap({ namespace, name: 'js' });
await watched;
assert.deepEqual(events, ['ADDED', 'MODIFIED', 'DELETED']);
request.abort();

await core.deleteNamespacedPod({ namespace, name: 'one' });
await until('one', 'gone');
stopping = true;
await informer.stop();
console.log('the JavaScript client is content');
process.exit(0);
