// Checks an HTTPRoute (JSON on standard input) against the types of the Gateway API.
//
//   httproute.mjs FOLDER     FOLDER has @kubernetes-models/gateway-api in its node_modules
//
// Unknown fields are ignored here. manifests.py checks them.
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'

const file = createRequire(resolve(process.argv[2], 'x.js')).resolve('@kubernetes-models/gateway-api/package.json')
const { validate } = await import(pathToFileURL(resolve(file, '../_schemas/IoK8sSigsGatewayApiApisV1HTTPRoute.js')))
if (!validate(JSON.parse(readFileSync(0, 'utf8')))) {
  for (const { instancePath, message, keyword, params } of validate.errors) {
    console.log(`${instancePath}: ${message ?? `${keyword} ${JSON.stringify(params)}`}`)
  }
  process.exit(1)
}
