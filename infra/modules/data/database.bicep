// The database, its containers, and the role that the function apps have in it.

@description('Name of the Cosmos DB account.')
param accountName string

@description('Autoscale maximum of each container, in RU/s.')
param maxThroughput object

@description('Days until a document of `events`, `materialized` or `quarantine` expires; 0 keeps it.')
param retentionDays object

var secondsPerDay = 86400
// On, but without a default: only documents that ask for it expire.
var keep = -1
var everything = [{ path: '/*' }]

// `id` and `_ts` are indexed in any case.
var containers = [
  {
    name: 'events'
    partitionKey: '/id'
    ttl: retentionDays.events == 0 ? keep : retentionDays.events * secondsPerDay
    maxThroughput: maxThroughput.events
    indexed: []
    notIndexed: everything
  }
  {
    name: 'materialized'
    partitionKey: '/deviceId'
    ttl: retentionDays.materialized == 0 ? keep : retentionDays.materialized * secondsPerDay
    maxThroughput: maxThroughput.materialized
    indexed: [{ path: '/deviceId/?' }, { path: '/maxValue/?' }, { path: '/time/?' }]
    notIndexed: everything
  }
  {
    name: 'leases'
    partitionKey: '/id'
    ttl: keep
    maxThroughput: maxThroughput.leases
    indexed: []
    notIndexed: everything
  }
  {
    name: 'quarantine'
    partitionKey: '/id'
    ttl: retentionDays.quarantine == 0 ? keep : retentionDays.quarantine * secondsPerDay
    maxThroughput: maxThroughput.quarantine
    indexed: everything
    notIndexed: []
  }
]

resource account 'Microsoft.DocumentDB/databaseAccounts@2025-10-15' existing = {
  name: accountName
}

resource database 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases@2025-10-15' = {
  parent: account
  name: 'eventsDb'
  properties: {
    resource: { id: 'eventsDb' }
  }
}

resource container 'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers@2025-10-15' = [for item in containers: {
  parent: database
  name: item.name
  properties: {
    resource: {
      id: item.name
      partitionKey: { paths: [item.partitionKey], kind: 'Hash', version: 2 }
      defaultTtl: item.ttl
      // Documents never change and have one writer, so this only ever settles two equal writes.
      conflictResolutionPolicy: { mode: 'LastWriterWins', conflictResolutionPath: '/_ts' }
      indexingPolicy: {
        indexingMode: 'consistent'
        automatic: true
        includedPaths: item.indexed
        excludedPaths: item.notIndexed
      }
    }
    options: {
      autoscaleSettings: { maxThroughput: item.maxThroughput }
    }
  }
}]

// What the functions do, and no more: they never delete or replace a document outside `leases`.
resource appender 'Microsoft.DocumentDB/databaseAccounts/sqlRoleDefinitions@2025-10-15' = {
  parent: account
  name: guid(account.id, 'appender')
  properties: {
    roleName: 'geo-events appender'
    type: 'CustomRole'
    assignableScopes: [account.id]
    permissions: [
      {
        dataActions: [
          'Microsoft.DocumentDB/databaseAccounts/readMetadata'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/executeQuery'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/readChangeFeed'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/create'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/read'
          'Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/upsert'
        ]
      }
    ]
  }
}

output name string = database.name
output leasesName string = container[2].name
output appenderRoleId string = appender.id
