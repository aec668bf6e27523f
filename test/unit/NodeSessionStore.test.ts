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
  it.live("gives a text that was put once, from a file that only its user can read", () =>
    withStore((store, file) =>
      Effect.gen(function* () {
        assert.deepStrictEqual(yield* store.take(tunnel), Option.none())
        yield* store.put(tunnel, "first")
        yield* store.put(tunnel, "second")
        assert.strictEqual(Fs.statSync(file).mode & 0o777, 0o600)
        assert.deepStrictEqual(yield* store.take(tunnel), Option.some("second"))
        assert.deepStrictEqual(yield* store.take(tunnel), Option.none())
      })
    )
  )

  it.live("fails at once where the file is a pipe, a folder or far too large, also in a finalizer", () =>
    withStore((store, file) =>
      Effect.gen(function* () {
        Fs.mkdirSync(Path.dirname(file))
        const reason = Effect.uninterruptible(Effect.map(Effect.flip(store.take(tunnel)), ({ message }) => message))
        execFileSync("mkfifo", [file])
        assert.strictEqual(yield* reason, `cannot read the session from ${file}: it is a pipe`)
        const put = yield* Effect.uninterruptible(Effect.flip(store.put(tunnel, "text")))
        assert.strictEqual(put.message, `cannot write the session to ${file}: no process reads this pipe`)
        Fs.rmSync(file)
        Fs.mkdirSync(file)
        assert.strictEqual(yield* reason, `cannot read the session from ${file}: it is a folder`)
        Fs.rmdirSync(file)
        Fs.writeFileSync(file, "")
        Fs.truncateSync(file, 2 ** 40)
        assert.strictEqual(yield* reason, `cannot read the session from ${file}: it has more than 1048576 bytes`)
      })
    )
  )
})
