/**
 * `Certificates` from files, read with `node:crypto`, and self-signed ones from the package selfsigned.
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as NodeCrypto from "node:crypto"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as RegularFile from "../../core/RegularFile.js"
import { type Certificate, CertificateError, Certificates, type Files } from "../../transport/Certificates.js"
import * as NodeRegularFile from "../file/NodeRegularFile.js"

/** The SHA-256 of the DER, as 64 lower-case hex digits. */
export const fingerprintOf = ({ raw }: NodeCrypto.X509Certificate): string =>
  NodeCrypto.createHash("sha256").update(raw).digest("hex")

/** The DNS names and IP addresses of a certificate; without any, its common name. */
export const namesOf = ({ subject, subjectAltName = "" }: NodeCrypto.X509Certificate): ReadonlyArray<string> => {
  const names = Array.from(subjectAltName.matchAll(/(?:^|, )(?:DNS|IP Address):([^,]+)/g), ([, name]) => name ?? "")
  return names.length > 0 ? names : Array.from(subject.matchAll(/^CN=(.*)$/gm), ([, name]) => name ?? "")
}

// internal

type Parameter = CertificateError["parameter"]

const hour = 3_600_000
const validity = 3652 * 24 * hour

/** Loads selfsigned when it is needed: that takes 100 ms, and most tunnels need none. */
const selfSigned: Effect.Effect<Certificate> = Effect.gen(function* () {
  const now = yield* Clock.currentTimeMillis
  const { cert, private: key } = yield* Effect.promise(async () => {
    // The default export: esbuild keeps no other in the bundle.
    const { default: Selfsigned } = await import("selfsigned")
    return Selfsigned.generate([{ name: "commonName", value: "nodepass" }], {
      keyType: "ec",
      curve: "P-256",
      algorithm: "sha256",
      // The peer's clock may be behind.
      notBeforeDate: new Date(now - hour),
      notAfterDate: new Date(now + validity)
    })
  })
  return certificateOf(new NodeCrypto.X509Certificate(cert), cert, key)
})

const certificateOf = (leaf: NodeCrypto.X509Certificate, chain: string, key: string): Certificate => ({
  chain,
  key: Redacted.make(key),
  fingerprint: fingerprintOf(leaf),
  names: namesOf(leaf),
  expires: Date.parse(leaf.validTo)
})

const load = (files: Files): Effect.Effect<Certificate, CertificateError> =>
  Effect.gen(function* () {
    const [chain, leaf] = yield* certificatesIn("crt", files.crt)
    const text = yield* read("key", files.key)
    const fail = (parameter: "crt" | "key", reason: CertificateError["reason"], detail: string) =>
      new CertificateError({ parameter, file: files[parameter], reason, detail })
    const key = yield* Effect.try({
      try: () => NodeCrypto.createPrivateKey(text),
      catch: () =>
        fail("key", "NotPem", /ENCRYPTED/.test(text) ? "its private key is encrypted" : "holds no private key in PEM")
    })
    if (!leaf.checkPrivateKey(key)) {
      return yield* fail("key", "KeyMismatch", `is not the key of the certificate in ${files.crt}`)
    }
    const certificate = certificateOf(leaf, Arr.map(chain, String).join(""), text)
    if (certificate.expires <= (yield* Clock.currentTimeMillis)) {
      const end = DateTime.formatIso(DateTime.unsafeMake(certificate.expires))
      return yield* fail("crt", "Expired", `its certificate expired at ${end}`)
    }
    const Tls = yield* Effect.promise(() => import("node:tls"))
    yield* Effect.try({
      try: () => Tls.createSecureContext({ cert: certificate.chain, key: text }),
      catch: (cause) => fail("crt", "Unusable", `cannot be used: ${reasonOf(cause)}`)
    })
    return certificate
  })

/** The certificates of a PEM file, and the first one once more. */
const certificatesIn = (parameter: Parameter, file: string) =>
  Effect.gen(function* () {
    const text = yield* read(parameter, file)
    const fail = () =>
      new CertificateError({ parameter, file, reason: "NotPem", detail: "holds no certificate in PEM" })
    const all = yield* Effect.try({
      try: () => (text.match(block) ?? []).map((pem) => new NodeCrypto.X509Certificate(pem)),
      catch: fail
    })
    return Arr.isNonEmptyArray(all) ? ([all, Arr.headNonEmpty(all)] as const) : yield* fail()
  })

const block = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

const authorities = (file: string): Effect.Effect<ReadonlyArray<string>, CertificateError> =>
  Effect.map(certificatesIn("ca", file), ([all]) => Arr.map(all, String))

const read = (parameter: Parameter, file: string): Effect.Effect<string, CertificateError> =>
  Effect.mapBoth(NodeRegularFile.read(file), {
    onSuccess: RegularFile.text,
    onFailure: ({ detail }) =>
      new CertificateError({ parameter, file, reason: "Unreadable", detail: `cannot be read: ${detail}` })
  })

const codeOf = (cause: unknown): string => (Predicate.hasProperty(cause, "code") ? String(cause.code) : "")

/** The reason that OpenSSL gives, which contains no secret. */
const reasonOf = (cause: unknown): string =>
  Predicate.hasProperty(cause, "reason") ? String(cause.reason) : codeOf(cause) || "failed"

/** The absolute path; none for a relative one if the working folder has been deleted. */
const resolved = (file: string): string | undefined => {
  try {
    return Path.resolve(file)
  } catch {
    return undefined
  }
}

/** The directory entries that decide what a path leads to: the file, and every symbolic link on the way. */
const entriesOf = (file: string): ReadonlyArray<readonly [folder: string, name: string]> => {
  const found: Array<readonly [folder: string, name: string]> = []
  const whole = resolved(file)
  if (whole === undefined) return found
  let folder = Path.parse(whole).root
  let rest = whole.slice(folder.length).split(Path.sep)
  // Linux follows 40 symbolic links.
  for (let links = 0; links < 40;) {
    const [name, ...further] = rest
    if (name === undefined) return found
    const path = Path.join(folder, name)
    const target = linkOf(path)
    if (target === undefined) {
      if (further.length === 0) found.push([folder, name])
      folder = path
      rest = further
    } else {
      links++
      found.push([folder, name])
      if (Path.isAbsolute(target)) folder = Path.parse(target).root
      rest = [...target.split(Path.sep).filter((part) => part !== ""), ...further]
    }
  }
  return found
}

const linkOf = (path: string): string | undefined => {
  try {
    return Fs.readlinkSync(path)
  } catch {
    // It is not a symbolic link, or cannot be read.
    return undefined
  }
}

const changes = (files: Files): Effect.Effect<Effect.Effect<void>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const changed = Effect.unsafeMakeLatch(false)
    const watchers = new Map<string, Fs.FSWatcher>()
    let names: ReadonlyArray<readonly [folder: string, name: string]> = []
    const unwatch = (folder: string) => {
      watchers.get(folder)?.close()
      watchers.delete(folder)
    }
    const watch = (folder: string) => {
      try {
        // The folder, not the file: when another file is renamed over a watched file, the watcher reports nothing any more.
        const watcher = Fs.watch(folder, { persistent: false }, (_, name) => {
          if (name === null || names.some(([at, own]) => at === folder && own === name)) changed.unsafeOpen()
        })
        watchers.set(folder, watcher)
        watcher.on("error", () => unwatch(folder))
      } catch {
        // The folder is missing, or the system allows no more watches. The files are read now and then in any case.
      }
    }
    /** Watches the folders that the links lead to now. */
    const follow = () => {
      names = [...entriesOf(files.crt), ...entriesOf(files.key)]
      const folders = new Set(names.map(([folder]) => folder))
      for (const folder of watchers.keys()) if (!folders.has(folder)) unwatch(folder)
      for (const folder of folders) if (!watchers.has(folder)) watch(folder)
    }
    // Following is synchronous: where the file system does not answer, it would stop the whole process.
    const followIfAnswered = Effect.all([NodeRegularFile.read(files.crt), NodeRegularFile.read(files.key)]).pipe(
      Effect.catchAll(({ reason }) => (reason === "TimedOut" ? Effect.fail(reason) : Effect.void)),
      Effect.zipRight(Effect.sync(follow)),
      Effect.ignore
    )
    yield* Effect.addFinalizer(() => Effect.sync(() => Array.from(watchers.keys(), unwatch)))
    yield* followIfAnswered
    return Effect.zipRight(followIfAnswered, Effect.zipRight(changed.await, changed.close))
  })

export const layer: Layer.Layer<Certificates> = Layer.succeed(
  Certificates,
  Certificates.of({ selfSigned, load, authorities, changes })
)
