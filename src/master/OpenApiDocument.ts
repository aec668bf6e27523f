/**
 * Corrects the OpenAPI document that @effect/platform generates where it differs from what the master sends.
 */
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

/**
 * Documents the header `If-Match` where 412 is a response.
 *
 * Documents requests that cannot be decoded as `Failure`, since the master answers them like every other error.
 *
 * Removes schemas that nothing refers to then, duplicates, and unions of one member.
 */
export const transform = (document: Record<string, unknown>): Record<string, unknown> => {
  const transformed = transformValue(document)
  return Predicate.isRecord(transformed) ? withConditions(transformed) : document
}

// internal

/** Not as a header in the endpoint's schema: every call of a typed client would have to give it. */
const withConditions = (document: Record<string, unknown>): Record<string, unknown> => {
  const operations = Object.values(Predicate.isRecord(document["paths"]) ? document["paths"] : {})
    .flatMap((path) => (Predicate.isRecord(path) ? Object.values(path) : []))
    .filter(Predicate.isRecord)
  for (const operation of operations) {
    const { parameters, responses } = operation
    if (!Predicate.isRecord(responses) || !("412" in responses)) continue
    operation["parameters"] = [...(Array.isArray(parameters) ? parameters : []), ifMatch]
  }
  return document
}

const ifMatch = {
  name: "If-Match",
  in: "header",
  required: false,
  schema: { type: "string" },
  description:
    'The change is made only if the version is one of these, such as "3"; * for any. ETag of the responses has the version.'
}

const unused = ["HttpApiDecodeError", "Issue", "PropertyKey"]

const isDecodeError = Schema.is(Schema.Struct({ $ref: Schema.Literal("#/components/schemas/HttpApiDecodeError") }))

const transformValue = (value: unknown): unknown => {
  if (isDecodeError(value)) return { $ref: "#/components/schemas/Failure" }
  if (Array.isArray(value)) return withoutDuplicates(value.map(transformValue))
  if (!Predicate.isRecord(value)) return value
  const entries = Object.entries(value).flatMap(([name, part]) =>
    unused.includes(name) && Predicate.isRecord(part) && !("$ref" in part)
      ? []
      : [[name, transformValue(part)] as const]
  )
  const transformed = Object.fromEntries(entries)
  const { allOf, anyOf } = transformed
  return onlyMember(anyOf) ?? onlyMember(allOf) ?? transformed
}

const onlyMember = (values: unknown): Record<string, unknown> | undefined =>
  Array.isArray(values) && values.length === 1 && Predicate.isRecord(values[0]) ? values[0] : undefined

const withoutDuplicates = (values: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  const texts = new Set<string>()
  return values.filter((value) => {
    const text = JSON.stringify(value)
    if (texts.has(text)) return false
    texts.add(text)
    return true
  })
}
