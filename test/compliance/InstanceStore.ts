/**
 * The laws of `InstanceStore` that every implementation passes.
 */
import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Id, type Meta, noMeta, noTraffic } from "../../src/master/Instance.js"
import * as InstanceStore from "../../src/master/InstanceStore.js"
import { runs } from "../Runs.js"

const id = (number: number) => Id.make(number.toString(16).padStart(8, "0"))

export const stored = (number: number, fields: Partial<InstanceStore.Stored> = {}): InstanceStore.Stored => ({
  id: id(number),
  alias: `instance ${number}`,
  url: `server://k@:1/:${number + 2}`,
  restart: true,
  meta: noMeta,
  traffic: noTraffic,
  version: 1,
  created: number,
  ...fields
})

const Text = FastCheck.oneof(
  FastCheck.string(),
  FastCheck.constantFrom("", "ü'\"\\", "'; DROP TABLE instances; --", "日本")
)
const Bytes = FastCheck.nat({ max: Number.MAX_SAFE_INTEGER })

/** A random change of one of three instances. */
const Change = FastCheck.oneof(
  FastCheck.record({ kind: FastCheck.constant("insert" as const), at: FastCheck.nat(2), text: Text }),
  FastCheck.record({
    kind: FastCheck.constant("save" as const),
    at: FastCheck.nat(2),
    text: Text,
    flag: FastCheck.boolean()
  }),
  FastCheck.record({ kind: FastCheck.constant("url" as const), at: FastCheck.nat(2), text: Text }),
  FastCheck.record({ kind: FastCheck.constant("traffic" as const), at: FastCheck.nat(2), bytes: Bytes }),
  FastCheck.record({ kind: FastCheck.constant("remove" as const), at: FastCheck.nat(2) }),
  FastCheck.record({ kind: FastCheck.constant("identify" as const), text: Text }),
  FastCheck.record({ kind: FastCheck.constant("reopen" as const) })
)

// PostgreSQL rejects NUL in text; the API accepts none.
const clean = (text: string) => text.replaceAll("\0", "")

/** `world` makes an empty store; each use of `open` opens it again, with its previous content. */
export const suite = (
  world: () => {
    readonly open: Layer.Layer<InstanceStore.InstanceStore, InstanceStore.StoreError>
    readonly close: () => void
  }
) => {
  const inWorld = async (
    program: (open: Layer.Layer<InstanceStore.InstanceStore, InstanceStore.StoreError>) => Effect.Effect<void, unknown>
  ) => {
    const { close, open } = world()
    try {
      Exit.getOrElse(await Effect.runPromiseExit(program(open)), (cause) => assert.fail(String(cause)))
    } finally {
      close()
    }
  }

  it("has the same content as the store in memory, also after it is opened again", () =>
    FastCheck.assert(
      FastCheck.asyncProperty(FastCheck.array(Change, { maxLength: 25 }), (changes) =>
        inWorld((open) =>
          Effect.gen(function* () {
            const model = InstanceStore.make()
            const rest = [...changes]
            const versions = new Map<number, number>()
            while (rest.length > 0) {
              yield* Effect.gen(function* () {
                const own = yield* InstanceStore.InstanceStore
                for (let change = rest.shift(); change !== undefined; change = rest.shift()) {
                  if (change.kind === "reopen") break
                  const both = <A>(ask: (store: InstanceStore.InstanceStore["Type"]) => Effect.Effect<A, unknown>) =>
                    Effect.zipRight(ask(model), ask(own))
                  if (change.kind === "identify") {
                    const identity = { mid: "0123", alias: clean(change.text), keyHash: "" }
                    yield* both((store) => store.identify(identity))
                    continue
                  }
                  const known = versions.get(change.at)
                  if (change.kind === "insert") {
                    if (known !== undefined) continue
                    versions.set(change.at, 1)
                    const given = stored(change.at, { alias: clean(change.text) })
                    yield* both((store) => store.insert(given))
                  } else if (change.kind === "save") {
                    const meta: Meta = { ...noMeta, tags: { [clean(change.text)]: "x" } }
                    if (known !== undefined) versions.set(change.at, known + 1)
                    const fields = { alias: clean(change.text), meta, restart: change.flag, version: (known ?? 0) + 1 }
                    yield* both((store) => store.save(id(change.at), fields))
                  } else if (change.kind === "url") {
                    if (known === undefined) continue
                    versions.set(change.at, known + 1)
                    const version = {
                      id: id(change.at),
                      version: known + 1,
                      url: clean(change.text),
                      time: 1_800_000_000_000
                    }
                    yield* both((store) => store.saveUrl(version))
                  } else if (change.kind === "traffic") {
                    const traffic = new Map([[id(change.at), { ...noTraffic, tcprx: change.bytes, udptx: 1 }]])
                    yield* both((store) => store.saveTraffic(traffic))
                  } else {
                    versions.delete(change.at)
                    yield* both((store) => store.remove(id(change.at)))
                  }
                }
              }).pipe(Effect.provide(open))
            }
            yield* Effect.gen(function* () {
              const own = yield* InstanceStore.InstanceStore
              const byId = (list: ReadonlyArray<InstanceStore.Stored>) => list.toSorted((a, b) => a.created - b.created)
              assert.deepStrictEqual(byId(yield* own.list), byId(yield* model.list))
              assert.deepStrictEqual(yield* own.identity, yield* model.identity)
              for (const at of [0, 1, 2]) {
                assert.deepStrictEqual(yield* own.versions(id(at)), yield* model.versions(id(at)))
              }
            }).pipe(Effect.provide(open))
          })
        )
      ),
      { numRuns: runs(5, 15) }
    ))

  it("restores a backup in place of its content", () =>
    inWorld((open) =>
      Effect.gen(function* () {
        const store = yield* InstanceStore.InstanceStore
        yield* store.identify({ mid: "0123", alias: "", keyHash: "hash" })
        yield* store.insert(stored(1))
        yield* store.saveUrl({ id: id(1), version: 2, url: "server://k@:1/:9", time: 5 })
        const text = yield* Schema.encode(InstanceStore.BackupText)(yield* store.backup)
        const before = {
          list: yield* store.list,
          versions: yield* store.versions(id(1)),
          identity: yield* store.identity
        }
        yield* store.remove(id(1))
        yield* store.insert(stored(2))
        yield* store.restore(yield* Schema.decode(InstanceStore.BackupText)(text))
        assert.deepStrictEqual(
          { list: yield* store.list, versions: yield* store.versions(id(1)), identity: yield* store.identity },
          before
        )
        assert.deepStrictEqual(yield* store.versions(id(2)), [])
      }).pipe(Effect.provide(open))
    ))

  it("saves fields of the identity and leaves the others, which another process may have changed", () =>
    inWorld((open) =>
      Effect.gen(function* () {
        const store = yield* InstanceStore.InstanceStore
        yield* store.identify({ mid: "0123", alias: "", keyHash: "first" })
        yield* store.saveIdentity({ keyHash: "second" })
        yield* store.saveIdentity({ alias: "web" })
        assert.deepStrictEqual(yield* store.identity, Option.some({ mid: "0123", alias: "web", keyHash: "second" }))
      }).pipe(Effect.provide(open))
    ))

  it("is unchanged by probes", () =>
    inWorld((open) =>
      Effect.gen(function* () {
        const store = yield* InstanceStore.InstanceStore
        yield* store.insert(stored(1))
        const before = yield* store.backup
        yield* Effect.zipRight(store.probe, store.probe)
        assert.deepStrictEqual(yield* store.backup, before)
      }).pipe(Effect.provide(open))
    ))

  it("has no identity before the first identify", () =>
    inWorld((open) =>
      Effect.gen(function* () {
        const store = yield* InstanceStore.InstanceStore
        yield* store.saveIdentity({ alias: "web" })
        assert.isTrue(Option.isNone(yield* store.identity))
      }).pipe(Effect.provide(open))
    ))
}
