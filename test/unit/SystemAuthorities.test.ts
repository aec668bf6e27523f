import { assert, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import * as SystemAuthorities from "../../src/node/socket/SystemAuthorities.js"

it.live("authorities in a file that cannot be read are left out and logged, and delay no connection", () =>
  Effect.gen(function* () {
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-authorities-"))
    const [pipe, added] = [Path.join(folder, "pipe"), Path.join(folder, "added")]
    execFileSync("mkfifo", [pipe])
    Fs.writeFileSync(added, "an authority")
    const before = { ...process.env }
    Object.assign(process.env, { SSL_CERT_FILE: pipe, NODE_EXTRA_CA_CERTS: added })
    const log: Array<string> = []
    const logger = Logger.make(({ message }) => void log.push(String(message)))
    const load = SystemAuthorities.load({
      side: "client",
      trust: { _tag: "Authority", name: "example.org", authorities: [] }
    })
    yield* Effect.all([load, load, load], { concurrency: "unbounded" }).pipe(
      Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
      Effect.ensuring(
        Effect.sync(() => {
          process.env = before
          Fs.rmSync(folder, { recursive: true })
        })
      )
    )
    assert.deepStrictEqual(SystemAuthorities.texts(), ["an authority"])
    assert.deepStrictEqual(log, [
      `SSL_CERT_FILE: ${pipe}: cannot be read: it is a pipe; its authorities are not trusted until the next start`
    ])
  })
)
