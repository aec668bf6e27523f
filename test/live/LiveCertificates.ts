/**
 * Real certificates for tests, issued by authorities that exist in the test only.
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { X509Certificate } from "node:crypto"
import { isIP } from "node:net"
import * as Selfsigned from "selfsigned"
import type { Certificate } from "../../src/transport/Certificates.js"
import { fingerprintOf } from "../../src/node/socket/NodeCertificates.js"
import type { CertificateSpec } from "../compliance/Tls.js"

const common = { keyType: "ec", curve: "P-256", algorithm: "sha256" } as const

const makeAuthority = (name: string) =>
  Selfsigned.generate([{ name: "commonName", value: name }], {
    ...common,
    extensions: [
      { name: "basicConstraints", cA: true, critical: true },
      { name: "keyUsage", keyCertSign: true, critical: true }
    ]
  })

const authorities = Effect.runSync(
  Effect.cached(
    Effect.promise(async () => ({ known: await makeAuthority("known"), unknown: await makeAuthority("unknown") }))
  )
)

/** The PEM text of the authority `known`. */
export const authority: Effect.Effect<string> = Effect.map(authorities, ({ known }) => known.cert)

export const certificate = (spec: CertificateSpec): Effect.Effect<Certificate> =>
  Effect.flatMap(authorities, (all) =>
    Effect.promise(async () => {
      const now = Date.now()
      const issuer = spec.issuer === "itself" ? undefined : all[spec.issuer]
      const altNames = spec.names.map((name) =>
        isIP(name) === 0 ? { type: 2 as const, value: name } : { type: 7 as const, ip: name }
      )
      const { cert, private: key } = await Selfsigned.generate([{ name: "commonName", value: "leaf" }], {
        ...common,
        notBeforeDate: new Date(now + (spec.begins ?? -1e6)),
        notAfterDate: new Date(now + (spec.expires ?? 1e9)),
        extensions: [{ name: "subjectAltName", altNames }],
        ...(issuer === undefined ? {} : { ca: { key: issuer.private, cert: issuer.cert } })
      })
      const leaf = new X509Certificate(cert)
      return {
        chain: `${cert}\n`,
        key: Redacted.make(key),
        fingerprint: fingerprintOf(leaf),
        names: spec.names,
        expires: Date.parse(leaf.validTo)
      }
    })
  )
