// What one function app may do in the database. These are Cosmos DB's own roles, not Azure's.

@description('Name of the Cosmos DB account.')
param accountName string

@description('Name of the database.')
param databaseName string

@description('Name of the lease container.')
param leasesName string

@description('Role that appends and reads documents.')
param appenderRoleId string

@description('Object id of the function app\'s identity.')
param principalId string

// "Cosmos DB Built-in Data Contributor", the same in every account.
var contributor = '00000000-0000-0000-0000-000000000002'

resource account 'Microsoft.DocumentDB/databaseAccounts@2025-10-15' existing = {
  name: accountName
}

resource appends 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2025-10-15' = {
  parent: account
  name: guid(account.id, principalId, appenderRoleId)
  properties: {
    principalId: principalId
    roleDefinitionId: appenderRoleId
    scope: '${account.id}/dbs/${databaseName}'
  }
}

// The change feed processor takes, renews and releases leases by replacing and deleting documents.
resource keepsLeases 'Microsoft.DocumentDB/databaseAccounts/sqlRoleAssignments@2025-10-15' = {
  parent: account
  name: guid(account.id, principalId, contributor, leasesName)
  properties: {
    principalId: principalId
    roleDefinitionId: '${account.id}/sqlRoleDefinitions/${contributor}'
    scope: '${account.id}/dbs/${databaseName}/colls/${leasesName}'
  }
  // Cosmos DB takes one change of roles at a time.
  dependsOn: [appends]
}
