/**
 * Reads the files of the master's web page from `dist/page`, once.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { createHash } from "node:crypto"
import { readdir, readFile } from "node:fs/promises"
import * as Path from "node:path"
import { promisify } from "node:util"
import { gzip } from "node:zlib"
import * as SystemReason from "../../core/SystemReason.js"
import { type File, Page } from "../../master/Page.js"
import * as Package from "../Package.js"

/** If the files cannot be read, logs a warning and serves no page; the API works without it. */
export const layer: Layer.Layer<Page> = Layer.effect(
  Page,
  Effect.catchAll(Effect.tryPromise(read), ({ cause }) =>
    Effect.as(Effect.logWarning(`the web page is not served: ${SystemReason.of(cause)}`), new Map())
  )
)

// internal

const types: Readonly<Record<string, string>> = {
  ".css": "text/css; charset=utf-8",
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".svg": "image/svg+xml"
}

const compress = promisify(gzip)

async function read(): Promise<ReadonlyMap<string, File>> {
  const folder = Path.join(Package.folder, "dist/page")
  const names = (await readdir(folder)).filter((name) => Path.extname(name) in types)
  const files = names.map(async (name) => {
    const body = await readFile(Path.join(folder, name))
    const etag = `"${createHash("sha256").update(body).digest("base64url").slice(0, 22)}"`
    return [name, { body, gzip: await compress(body), type: types[Path.extname(name)] ?? "", etag }] as const
  })
  return new Map(await Promise.all(files))
}
