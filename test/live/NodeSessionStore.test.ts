import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import * as NodeSessionStore from "../../src/node/store/NodeSessionStore.js"
import { SessionStore, type Store } from "../../src/tunnel/SessionStore.js"

const tunnel = "example.org:10101"

/** A store in a folder of its own, and the file of the tunnel there. */
const withStore = <E>(use: (store: Store, file: string) => Effect.Effect<void, E>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-session-"))),
    (folder) =>
      Effect.flatMap(SessionStore, ({ store }) =>
        use(Option.getOrThrow(store), Path.join(folder, "state", `session-${encodeURIComponent(tunnel)}.json`))
      ).pipe(Effect.provide(NodeSessionStore.layer(Path.join(folder, "state")))),
    (folder) => Effect.sync(() => Fs.rmSync(folder, { recursive: true }))
  )

describe("NodeSessionStore", () => {
  it.live("gives the last text until it is removed, from a file that only its user can read", () =>
    withStore((store, file) =>
      Effect.gen(function* () {
        const place = yield* store.open(tunnel)
        assert.deepStrictEqual(yield* place.read, Option.none())
        yield* place.write("first", { isDurable: true })
        // What a process left that was killed while it wrote.
        Fs.writeFileSync(`${file}.new`, "sec", { mode: 0o644 })
        yield* place.write("second", { isDurable: false })
        assert.strictEqual(Fs.statSync(file).mode & 0o777, 0o600)
        assert.deepStrictEqual(yield* place.read, Option.some("second"))
        assert.deepStrictEqual(yield* place.read, Option.some("second"))
        yield* place.remove
        yield* place.remove
        assert.deepStrictEqual(yield* place.read, Option.none())
        const left = Fs.readdirSync(Path.dirname(file)).filter((name) => !name.includes(".lock"))
        assert.deepStrictEqual(left, [])
      }).pipe(Effect.scoped)
    )
  )

  it.live("belongs to one tunnel at a time, until that one ends", () =>
    withStore((store, file) =>
      Effect.gen(function* () {
        yield* Effect.scoped(
          Effect.gen(function* () {
            yield* store.open(tunnel)
            const { message } = yield* Effect.flip(store.open(tunnel))
            assert.strictEqual(message, `cannot keep the session in ${file}: another process keeps its session there`)
            yield* store.open("another:10101")
          })
        )
        yield* store.open(tunnel)
      }).pipe(Effect.scoped)
    )
  )

  it.live("fails at once where the file is a pipe, a folder or far too large, also in a finalizer", () =>
    withStore((store, file) =>
      Effect.gen(function* () {
        const place = yield* store.open(tunnel)
        const reason = Effect.uninterruptible(Effect.map(Effect.flip(place.read), ({ message }) => message))
        execFileSync("mkfifo", [file])
        assert.strictEqual(yield* reason, `cannot read the session from ${file}: it is a pipe`)
        Fs.rmSync(file)
        Fs.mkdirSync(file)
        assert.strictEqual(yield* reason, `cannot read the session from ${file}: it is a folder`)
        const write = place.write("text", { isDurable: true })
        const { message } = yield* Effect.uninterruptible(Effect.flip(write))
        assert.match(message, /^cannot write the session to .*: /)
        Fs.rmdirSync(file)
        Fs.writeFileSync(file, "")
        Fs.truncateSync(file, 2 ** 40)
        assert.strictEqual(yield* reason, `cannot read the session from ${file}: it has more than 1048576 bytes`)
      }).pipe(Effect.scoped)
    )
  )
})
