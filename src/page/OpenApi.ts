/**
 * The parts of an OpenAPI document that the API page uses.
 */

export interface Document {
  readonly paths: Readonly<Record<string, Readonly<Record<string, Operation>>>>
  readonly components?: { readonly schemas?: Readonly<Record<string, Schema>> | undefined } | undefined
}

export interface Operation {
  readonly tags?: ReadonlyArray<string> | undefined
  readonly description?: string | undefined
  readonly security?: ReadonlyArray<unknown> | undefined
  readonly parameters?: ReadonlyArray<Parameter> | undefined
  readonly requestBody?: { readonly content?: Contents | undefined } | undefined
  readonly responses: Readonly<
    Record<string, { readonly description?: string | undefined; readonly content?: Contents | undefined }>
  >
}

type Contents = Readonly<Record<string, { readonly schema?: Schema | undefined }>>

interface Parameter {
  readonly name: string
  readonly in: string
  readonly required?: boolean | undefined
  readonly description?: string | undefined
}

export interface Schema {
  readonly $ref?: string | undefined
  readonly type?: string | undefined
  readonly description?: string | undefined
  readonly enum?: ReadonlyArray<unknown> | undefined
  readonly anyOf?: ReadonlyArray<Schema> | undefined
  readonly items?: Schema | undefined
  readonly properties?: Readonly<Record<string, Schema>> | undefined
  readonly required?: ReadonlyArray<string> | undefined
}

/** One method of one path. */
export interface Endpoint {
  readonly method: string
  readonly path: string
  readonly operation: Operation
}

/** All endpoints by group. */
export const groupsOf = ({ paths }: Document): ReadonlyArray<readonly [name: string, ReadonlyArray<Endpoint>]> => {
  const groups = new Map<string, Array<Endpoint>>()
  for (const [path, methods] of Object.entries(paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const name = operation.tags?.[0] ?? "other"
      groups.set(name, [...(groups.get(name) ?? []), { method: method.toUpperCase(), path, operation }])
    }
  }
  return [...groups]
}

/** The schema of the request body. */
export const bodyOf = ({ requestBody }: Operation): Schema | undefined =>
  requestBody?.content?.["application/json"]?.schema

/** An example value for the schema, to be edited by the user. */
export const sampleOf = (document: Document, schema: Schema | undefined): unknown => {
  const { anyOf, enum: values, properties, type } = resolved(document, schema)
  if (values !== undefined) return values[0]
  if (anyOf !== undefined) return sampleOf(document, anyOf[0])
  if (type === "object" || properties !== undefined) {
    return Object.fromEntries(Object.entries(properties ?? {}).map(([name, part]) => [name, sampleOf(document, part)]))
  }
  return type === "array" ? [] : type === "boolean" ? true : type === "number" || type === "integer" ? 1 : ""
}

/** The schema in TypeScript notation; references by name. */
export const textOf = (schema: Schema | undefined): string => {
  if (schema === undefined) return "unknown"
  const { $ref, anyOf, enum: values, items, properties, required = [], type } = schema
  if ($ref !== undefined) return $ref.split("/").at(-1) ?? $ref
  if (values !== undefined) return values.map((value) => JSON.stringify(value)).join(" | ")
  if (anyOf !== undefined) return anyOf.map(textOf).join(" | ")
  if (items !== undefined) return `${textOf(items)}[]`
  if (properties === undefined) return type ?? "unknown"
  const fields = Object.entries(properties).map(
    ([name, part]) => `${name}${required.includes(name) ? "" : "?"}: ${textOf(part)}`
  )
  return `{ ${fields.join(", ")} }`
}

// internal

const resolved = (document: Document, schema: Schema | undefined): Schema => {
  const name = schema?.$ref?.split("/").at(-1)
  if (schema === undefined || name === undefined) return schema ?? {}
  return resolved(document, document.components?.schemas?.[name])
}
