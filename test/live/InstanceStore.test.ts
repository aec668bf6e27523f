import { afterAll, assert, beforeAll, describe, it } from "@effect/vitest"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as InstanceStore from "../../src/master/InstanceStore.js"
import * as NodeBackup from "../../src/node/store/NodeBackup.js"
import * as NodeState from "../../src/node/store/NodeState.js"
import * as SqlInstanceStore from "../../src/node/store/SqlInstanceStore.js"
import * as Sqlite from "../../src/node/store/Sqlite.js"
import * as Postgres from "./command/Postgres.js"
import { stored, suite } from "../compliance/InstanceStore.js"

let root = ""
beforeAll(() => {
  root = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-store-"))
})
afterAll(() => Fs.rmSync(root, { recursive: true, force: true }))
const folder = () => Fs.mkdtempSync(Path.join(root, "state-"))
const place = (text: string) => Option.some(Redacted.make(text))
const open = (path: string) => NodeState.layer(place(path))

describe("InstanceStore in memory", () => {
  suite(() => {
    const store = InstanceStore.make()
    return { open: Layer.succeed(InstanceStore.InstanceStore, store), close: () => {} }
  })
})

describe("InstanceStore in SQLite", () => {
  suite(() => ({ open: open(folder()), close: () => {} }))
})

describe.skipIf(Postgres.programs === undefined)("InstanceStore in PostgreSQL", () => {
  let server: Postgres.Postgres | undefined
  beforeAll(async () => {
    server = await Postgres.make(Postgres.programs ?? "")
    await server.start()
  })
  afterAll(() => server?.close())

  const clear = Layer.effectDiscard(
    Effect.flatMap(InstanceStore.InstanceStore, ({ restore }) =>
      restore({ format: "nodepass-backup/1", identity: null, instances: [], versions: [] })
    )
  )
  suite(() => {
    const store = open(server?.url ?? "")
    let first = true
    return {
      open: Layer.unwrapEffect(
        Effect.sync(() => {
          const layer = first ? Layer.provideMerge(clear, store) : store
          first = false
          return layer
        })
      ),
      close: () => {}
    }
  })
})

describe("NodeState of a folder", () => {
  const withStore = <A, E>(folder: string, program: Effect.Effect<A, E, InstanceStore.InstanceStore>) =>
    Effect.runPromise(Effect.either(Effect.provide(program, open(folder))))
  const list = Effect.flatMap(InstanceStore.InstanceStore, ({ list }) => list)
  const insert = (number: number) => Effect.flatMap(InstanceStore.InstanceStore, ({ insert }) => insert(stored(number)))
  const problem = async (folder: string) => {
    const found = await withStore(folder, list)
    return Either.isLeft(found) ? `${found.left.reason}: ${found.left.message}` : "no problem"
  }

  it("is one file after it is closed, readable only by its user", async () => {
    const path = folder()
    await withStore(path, insert(1))
    assert.deepStrictEqual(
      Fs.readdirSync(path).filter((name) => name.startsWith("nodepass.db")),
      ["nodepass.db"]
    )
    assert.strictEqual(Fs.statSync(Path.join(path, "nodepass.db")).mode & 0o777, 0o600)
  })

  it("can be used by one master at a time, and read by a backup meanwhile", async () => {
    const path = folder()
    const shared = NodeState.layer(place(path), { purpose: "shared" })
    const program = Effect.gen(function* () {
      yield* insert(1)
      return [yield* Effect.promise(() => problem(path)), (yield* Effect.provide(list, shared)).length]
    })
    const [second, length] = Either.getOrThrow(await withStore(path, program))
    assert.match(String(second), /^Locked: state .*: another master uses it$/)
    assert.strictEqual(length, 1)
    assert.strictEqual(await problem(path), "no problem")
  })

  it.each([
    [
      "garbage",
      (file: string) => Fs.writeFileSync(file, "no database".repeat(1000)),
      /Corrupt: state .*not a database/
    ],
    ["no content", (file: string) => Fs.writeFileSync(file, ""), /Corrupt: state .*the file is empty/],
    [
      "half of its size",
      (file: string) => Fs.truncateSync(file, Math.floor(Fs.statSync(file).size / 2)),
      /Corrupt: state .*(malformed|damaged)/
    ]
  ] as const)("fails when the file has %s, and leaves it unchanged", async (_, damage, line) => {
    const path = folder()
    const file = Path.join(path, "nodepass.db")
    await withStore(path, insert(1))
    damage(file)
    const before = Fs.readFileSync(file)
    assert.match(await problem(path), line)
    assert.deepStrictEqual(Fs.readFileSync(file), before)
  })

  it("fails when a later version wrote it", async () => {
    const path = folder()
    await withStore(path, insert(1))
    const later = Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`INSERT INTO nodepass_migrations ${sql.insert({ migration_id: 999, name: "later" })}`
    )
    await Effect.runPromise(Effect.provide(later, Sqlite.layer(Path.join(path, "nodepass.db"))))
    assert.match(await problem(path), /^Newer: state .*table version 999, this nodepass supports up to \d+$/)
  })

  it("fails when the file is missing while there is a backup, and restores the backup", async () => {
    const path = folder()
    const backup = Path.join(path, "backup.json")
    await withStore(path, Effect.zipRight(insert(1), NodeBackup.write(backup)))
    Fs.rmSync(Path.join(path, "nodepass.db"))
    assert.match(await problem(path), /^Corrupt: .*the file is missing, but there is a backup; run nodepass restore /)
    await Effect.runPromise(NodeBackup.restore(NodeBackup.read(backup), place(path), { force: false }))
    assert.deepStrictEqual(await withStore(path, list), Either.right([stored(1)]))
    const again = await Effect.runPromise(
      Effect.flip(NodeBackup.restore(NodeBackup.read(backup), place(path), { force: false }))
    )
    assert.match(again.message, /it has 1 instances; use --force to replace them$/)
  })

  it("keeps what it has when the disk is full, and accepts changes when there is space again", async () => {
    const file = Path.join(folder(), "nodepass.db")
    const full = Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* InstanceStore.InstanceStore
      yield* sql`PRAGMA max_page_count = 30`
      const inserted: Array<InstanceStore.Stored> = []
      const add = (number: number) =>
        Effect.gen(function* () {
          const given = stored(number, { alias: "x".repeat(10_000) })
          yield* store.insert(given)
          inserted.push(given)
        })
      const error = yield* Effect.flip(
        Effect.forEach(
          Array.from({ length: 50 }, (_, at) => at),
          add
        )
      )
      assert.match(error.message, /^state x: .*full/)
      assert.deepStrictEqual(yield* store.list, inserted)
      yield* store.remove(stored(0).id)
      yield* add(100)
      assert.deepStrictEqual(yield* store.list, inserted.slice(1))
    })
    const layer = Layer.provideMerge(SqlInstanceStore.layer({ place: "x" }), Sqlite.layer(file))
    await Effect.runPromise(Effect.provide(full, layer))
  })

  it("rejects a file that is not a backup", async () => {
    const file = Path.join(folder(), "x.json")
    Fs.writeFileSync(file, '{"format":"other"}')
    const error = await Effect.runPromise(Effect.flip(NodeBackup.read(file)))
    assert.match(error.message, /not a backup of a nodepass master$/)
  })
})
