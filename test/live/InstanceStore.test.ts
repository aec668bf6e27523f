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
const open = (at: string) => NodeState.layer(place(at))

describe("in memory", () => {
  suite(() => {
    const store = InstanceStore.make()
    return { open: Layer.succeed(InstanceStore.InstanceStore, store), close: () => {} }
  })
})

describe("in SQLite", () => {
  suite(() => ({ open: open(folder()), close: () => {} }))
})

describe.skipIf(Postgres.found === undefined)("in PostgreSQL", () => {
  let server: Postgres.Postgres | undefined
  beforeAll(async () => {
    server = await Postgres.make(Postgres.found ?? "")
    await server.start()
  })
  afterAll(() => server?.close())

  const emptied = Layer.effectDiscard(
    Effect.flatMap(InstanceStore.InstanceStore, ({ restore }) =>
      restore({ format: "nodepass-backup/1", identity: null, instances: [], versions: [] })
    )
  )
  suite(() => {
    const own = open(server?.url ?? "")
    let first = true
    return {
      open: Layer.unwrapEffect(
        Effect.sync(() => {
          const layer = first ? Layer.provideMerge(emptied, own) : own
          first = false
          return layer
        })
      ),
      close: () => {}
    }
  })
})

describe("a folder of state", () => {
  const look = <A, E>(at: string, program: Effect.Effect<A, E, InstanceStore.InstanceStore>) =>
    Effect.runPromise(Effect.either(Effect.provide(program, open(at))))
  const list = Effect.flatMap(InstanceStore.InstanceStore, ({ list }) => list)
  const insert = (number: number) => Effect.flatMap(InstanceStore.InstanceStore, ({ insert }) => insert(stored(number)))
  const problem = async (at: string) => {
    const found = await look(at, list)
    return Either.isLeft(found) ? `${found.left.reason}: ${found.left.message}` : "no problem"
  }

  it("is one file for its user alone, once it is closed", async () => {
    const at = folder()
    await look(at, insert(1))
    assert.deepStrictEqual(
      Fs.readdirSync(at).filter((name) => name.startsWith("nodepass.db")),
      ["nodepass.db"]
    )
    assert.strictEqual(Fs.statSync(Path.join(at, "nodepass.db")).mode & 0o777, 0o600)
  })

  it("is one master's at a time, and may be looked at beside it", async () => {
    const at = folder()
    const beside = NodeState.layer(place(at), { beside: true })
    const held = Effect.gen(function* () {
      yield* insert(1)
      return [yield* Effect.promise(() => problem(at)), (yield* Effect.provide(list, beside)).length]
    })
    const [second, seen] = Either.getOrThrow(await look(at, held))
    assert.match(String(second), /^Locked: state .*: another master has it$/)
    assert.strictEqual(seen, 1)
    assert.strictEqual(await problem(at), "no problem")
  })

  it.each([
    [
      "garbage",
      (file: string) => Fs.writeFileSync(file, "no database".repeat(1000)),
      /Corrupt: state .*not a database/
    ],
    ["nothing", (file: string) => Fs.writeFileSync(file, ""), /Corrupt: state .*it is empty/],
    [
      "half of itself",
      (file: string) => Fs.truncateSync(file, Math.floor(Fs.statSync(file).size / 2)),
      /Corrupt: state .*(malformed|damaged)/
    ]
  ] as const)("that holds %s is an error, and stays as it is", async (_, damage, line) => {
    const at = folder()
    const file = Path.join(at, "nodepass.db")
    await look(at, insert(1))
    damage(file)
    const before = Fs.readFileSync(file)
    assert.match(await problem(at), line)
    assert.deepStrictEqual(Fs.readFileSync(file), before)
  })

  it("of a later version is an error", async () => {
    const at = folder()
    await look(at, insert(1))
    const later = Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`INSERT INTO nodepass_migrations ${sql.insert({ migration_id: 999, name: "later" })}`
    )
    await Effect.runPromise(Effect.provide(later, Sqlite.layer(Path.join(at, "nodepass.db"))))
    assert.match(await problem(at), /^Newer: state .*expected at most version \d+ of its tables, found 999$/)
  })

  it("whose database is gone is an error while a backup is there, and a backup brings it back", async () => {
    const at = folder()
    const backup = Path.join(at, "backup.json")
    await look(at, Effect.zipRight(insert(1), NodeState.writeBackup(backup)))
    Fs.rmSync(Path.join(at, "nodepass.db"))
    assert.match(await problem(at), /^Corrupt: .*it is gone, and a backup is there: nodepass restore /)
    await Effect.runPromise(NodeState.restore(backup, place(at), { force: false }))
    assert.deepStrictEqual(await look(at, list), Either.right([stored(1)]))
    const again = await Effect.runPromise(Effect.flip(NodeState.restore(backup, place(at), { force: false })))
    assert.match(again.message, /it has 1 instances: expected none, or --force/)
  })

  it("that is full refuses what it has no place for, and nothing that it has", async () => {
    const file = Path.join(folder(), "nodepass.db")
    const full = Effect.gen(function* () {
      const sql = yield* SqlClient.SqlClient
      const store = yield* InstanceStore.InstanceStore
      yield* sql`PRAGMA max_page_count = 30`
      const kept: Array<InstanceStore.Stored> = []
      const add = (number: number) =>
        Effect.gen(function* () {
          const given = stored(number, { alias: "x".repeat(10_000) })
          yield* store.insert(given)
          kept.push(given)
        })
      const error = yield* Effect.flip(
        Effect.forEach(
          Array.from({ length: 50 }, (_, at) => at),
          add
        )
      )
      assert.match(error.message, /^state x: .*full/)
      assert.deepStrictEqual(yield* store.list, kept)
      yield* store.remove(stored(0).id)
      yield* add(100)
      assert.deepStrictEqual(yield* store.list, kept.slice(1))
    })
    const layer = Layer.provideMerge(SqlInstanceStore.layer({ place: "x" }), Sqlite.layer(file))
    await Effect.runPromise(Effect.provide(full, layer))
  })

  it("a file that is no backup is not brought back", async () => {
    const file = Path.join(folder(), "x.json")
    Fs.writeFileSync(file, '{"format":"other"}')
    const error = await Effect.runPromise(Effect.flip(NodeState.readBackup(file)))
    assert.match(error.message, /it is no backup of a nodepass master/)
  })
})
