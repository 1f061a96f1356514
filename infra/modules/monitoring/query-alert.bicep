// One alert on a query of the logs: it fires for each region in which the query finds something.

@description('Name of the alert.')
param name string

@description('What it means and what to do.')
param summary string

@description('Region of the alert.')
param location string

@description('Tags of the alert.')
param tags object

@description('1 for an error, 2 for a warning.')
param severity int

@description('Workspace with the logs.')
param workspaceId string

@description('KQL with one row per app (`AppRoleName`) that is in trouble.')
param query string

@description('Who is told.')
param actionGroupId string

resource alert 'Microsoft.Insights/scheduledQueryRules@2023-12-01' = {
  name: name
  location: location
  tags: tags
  kind: 'LogAlert'
  properties: {
    displayName: name
    description: summary
    severity: severity
    enabled: true
    scopes: [workspaceId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT15M'
    autoMitigate: true
    // The tables are there only once the first app has logged.
    skipQueryValidation: true
    criteria: {
      allOf: [
        {
          query: query
          timeAggregation: 'Count'
          operator: 'GreaterThan'
          threshold: 0
          dimensions: [
            { name: 'AppRoleName', operator: 'Include', values: ['*'] }
          ]
          failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
        }
      ]
    }
    actions: { actionGroups: [actionGroupId] }
  }
}
